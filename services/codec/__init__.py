"""Protobuf stops here: every message from and to the frozen dataclasses of the core, validated on the way in.

`*_to_proto` never fails. `*_from_proto` raises `InvalidInput` with every field at fault, by its path.
"""

from services.codec.candidates import candidates_from_proto, candidates_to_proto
from services.codec.cascade_calls import (
    CascadeAnswer,
    cascade_answer_from_proto,
    cascade_answer_to_proto,
    cascade_from_proto,
    cascade_to_proto,
)
from services.codec.context import context_from_proto, context_to_proto, features_to_proto
from services.codec.events import events_from_proto, recorded_to_proto
from services.codec.filter import filter_from_proto, filter_to_proto
from services.codec.moments import (
    duration_from_proto,
    duration_to_proto,
    timestamp_from_proto,
    timestamp_to_proto,
)
from services.codec.placement import assignment_to_proto, placement_from_proto, placement_to_proto
from services.codec.release import release_from_proto, release_to_proto
from services.codec.release_quality import quality_to_proto
from services.codec.replica import REPLICA_STATE_TO_PROTO, replica_from_proto, replica_to_proto
from services.codec.search import SearchRequest, search_from_proto, search_to_proto
from services.codec.stage_calls import (
    Explaining,
    Retrieval,
    Scoring,
    StageAnswer,
    answer_from_proto,
    explain_from_proto,
    explain_to_proto,
    header_to_proto,
    pre_rank_from_proto,
    pre_rank_to_proto,
    rank_from_proto,
    rank_to_proto,
    retrieve_from_proto,
    retrieve_to_proto,
)
from services.codec.stages import STAGE_FROM_PROTO, STAGE_TO_PROTO, model_version_to_proto

__all__ = [
    "REPLICA_STATE_TO_PROTO",
    "STAGE_FROM_PROTO",
    "STAGE_TO_PROTO",
    "CascadeAnswer",
    "Explaining",
    "Retrieval",
    "Scoring",
    "SearchRequest",
    "StageAnswer",
    "answer_from_proto",
    "assignment_to_proto",
    "candidates_from_proto",
    "candidates_to_proto",
    "cascade_answer_from_proto",
    "cascade_answer_to_proto",
    "cascade_from_proto",
    "cascade_to_proto",
    "context_from_proto",
    "context_to_proto",
    "duration_from_proto",
    "duration_to_proto",
    "events_from_proto",
    "explain_from_proto",
    "explain_to_proto",
    "features_to_proto",
    "filter_from_proto",
    "filter_to_proto",
    "header_to_proto",
    "model_version_to_proto",
    "placement_from_proto",
    "placement_to_proto",
    "pre_rank_from_proto",
    "pre_rank_to_proto",
    "quality_to_proto",
    "rank_from_proto",
    "rank_to_proto",
    "recorded_to_proto",
    "release_from_proto",
    "release_to_proto",
    "replica_from_proto",
    "replica_to_proto",
    "retrieve_from_proto",
    "retrieve_to_proto",
    "search_from_proto",
    "search_to_proto",
    "timestamp_from_proto",
    "timestamp_to_proto",
]
