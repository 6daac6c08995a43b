"""Models behind a router's stage proxy as servables, so that goldens are replayed over the wire."""

from dataclasses import replace
from pathlib import Path

import grpc

from protos.headrace.v1.pre_ranking_service_pb2_grpc import PreRankingServiceStub
from protos.headrace.v1.ranking_service_pb2_grpc import RankingServiceStub
from protos.headrace.v1.retrieval_service_pb2_grpc import RetrievalServiceStub
from services import codec
from shards.bundle import read_manifest
from shards.candidates import Candidates
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.release import ModelVersion, Stage
from shards.stages import Servable
from tests.services.asked_models import AskedRetriever, AskedScorer

_TIMEOUT_S = 30.0


def replay_remotely(channel: grpc.Channel, model: ModelVersion, stage: Stage, folder: Path) -> None:
    """Have a cluster answer the goldens of the bundle in `folder`.

    Raises `MismatchedBundle` where an answer differs, `grpc.RpcError` where there is none.
    """
    tolerance = read_manifest(folder).tolerance
    replay(_remote(channel, model, stage), read_golden(folder / GOLDEN_FILE), tolerance.rtol, tolerance.atol)


def _remote(channel: grpc.Channel, model: ModelVersion, stage: Stage) -> Servable:
    """Return a model of a cluster."""
    retrieval, pre_ranking = RetrievalServiceStub(channel), PreRankingServiceStub(channel)
    ranking = RankingServiceStub(channel)

    def retrieve(call: codec.Retrieval) -> Candidates:
        # A golden that expects no candidate still has to ask for one.
        request = codec.retrieve_to_proto(replace(call, k=max(1, call.k)))
        response = retrieval.Retrieve(request, timeout=_TIMEOUT_S)
        return codec.answer_from_proto(response).candidates

    def pre_rank(call: codec.Scoring) -> Candidates:
        request = codec.pre_rank_to_proto(call)
        response = pre_ranking.PreRank(request, timeout=_TIMEOUT_S)
        return codec.answer_from_proto(response).candidates

    def rank(call: codec.Scoring) -> Candidates:
        request = codec.rank_to_proto(call)
        response = ranking.Rank(request, timeout=_TIMEOUT_S)
        return codec.answer_from_proto(response).candidates

    if stage is Stage.RETRIEVAL:
        return AskedRetriever(model, retrieve)
    return AskedScorer(model, pre_rank if stage is Stage.PRE_RANKING else rank)
