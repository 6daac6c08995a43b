"""One stage as the Python client asks it: its requests, and its answer as frozen values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from protos.headrace.v1.pre_ranking_service_pb2 import PreRankRequest, PreRankResponse
from protos.headrace.v1.ranking_service_pb2 import RankRequest, RankResponse
from protos.headrace.v1.retrieval_service_pb2 import RetrieveRequest, RetrieveResponse
from protos.headrace.v1.types_pb2 import ModelVersion
from router import client_requests
from router.client_requests import Clause
from router.client_results import StageList, milliseconds, stage_list

if TYPE_CHECKING:
    from shards.search_context import SearchContext

StageRequest: TypeAlias = RetrieveRequest | PreRankRequest | RankRequest
StageResponse: TypeAlias = RetrieveResponse | PreRankResponse | RankResponse

RETRIEVE = "/headrace.v1.RetrievalService/Retrieve"
PRE_RANK = "/headrace.v1.PreRankingService/PreRank"
RANK = "/headrace.v1.RankingService/Rank"


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """Item attributes to return, for how many of the first candidates."""

    attributes: Sequence[str] = ()
    count: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """What one model answered; `direct` when its shard was asked without a router between."""

    candidates: StageList
    model: str
    version: str
    shard_id: str
    queue_ms: float
    compute_ms: float
    direct: bool


def retrieve_request(
    model: ModelVersion,
    search: "SearchContext",
    k: int,
    clauses: Sequence[Clause],
    show: Show,
) -> RetrieveRequest:
    """Return the message that asks a model for `k` candidates."""
    return RetrieveRequest(
        model=model,
        context=client_requests.context(search),
        k=k,
        filter=client_requests.clauses(clauses),
        attributes=show.attributes,
        attribute_count=show.count,
    )


def pre_rank_request(
    model: ModelVersion, search: "SearchContext", candidates: StageList, keep: int, show: Show
) -> PreRankRequest:
    """Return the message that asks a pre-ranker for the best of the candidates."""
    return PreRankRequest(
        model=model,
        context=client_requests.context(search),
        candidates=client_requests.candidates(candidates),
        keep=keep,
        attributes=show.attributes,
        attribute_count=show.count,
    )


def rank_request(
    model: ModelVersion,
    search: "SearchContext",
    candidates: StageList,
    keep: int,
    task_exponents: Mapping[str, float],
    show: Show,
) -> RankRequest:
    """Return the message that asks a ranker for the best of the candidates."""
    return RankRequest(
        model=model,
        context=client_requests.context(search),
        candidates=client_requests.candidates(candidates),
        keep=keep,
        task_exponents=task_exponents,
        attributes=show.attributes,
        attribute_count=show.count,
    )


def result_of(response: StageResponse, *, direct: bool) -> StageResult:
    """Return the response as frozen values."""
    header = response.header
    return StageResult(
        candidates=stage_list(response.candidates),
        model=header.model.model,
        version=header.model.version,
        shard_id=header.shard_id,
        queue_ms=milliseconds(header.queue_time),
        compute_ms=milliseconds(header.compute_time),
        direct=direct,
    )
