"""Models behind a router's stage proxy as servables, so that goldens are replayed over the wire."""

from collections.abc import Mapping
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
from shards.search_context import Filter, SearchContext
from shards.stages import Servable

_TIMEOUT_S = 30.0


class RemoteRetriever:
    """A retrieval model of a cluster."""

    def __init__(self, channel: grpc.Channel, model: ModelVersion) -> None:
        self._retrieve = RetrievalServiceStub(channel).Retrieve
        self._model = model

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Ask for candidates; a golden that expects none still has to ask for one."""
        call = codec.Retrieval(
            model=self._model,
            context=context,
            k=max(1, k),
            filter=allowed,
            attributes=attributes,
            attribute_count=attribute_count,
        )
        response = self._retrieve(codec.retrieve_to_proto(call), timeout=_TIMEOUT_S)
        return codec.answer_from_proto(response).candidates


class RemoteScorer:
    """A pre-ranking or ranking model of a cluster."""

    def __init__(self, channel: grpc.Channel, model: ModelVersion, stage: Stage) -> None:
        self._pre_rank = PreRankingServiceStub(channel).PreRank
        self._rank = RankingServiceStub(channel).Rank
        self._model, self._stage = model, stage

    def score(
        self,
        context: SearchContext,
        candidates: Candidates,
        keep: int,
        task_exponents: Mapping[str, float],
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Ask for scores."""
        call = codec.Scoring(
            model=self._model,
            context=context,
            candidates=candidates,
            keep=keep,
            task_exponents=task_exponents,
            attributes=attributes,
            attribute_count=attribute_count,
        )
        if self._stage is Stage.PRE_RANKING:
            pre_ranked = self._pre_rank(codec.pre_rank_to_proto(call), timeout=_TIMEOUT_S)
            return codec.answer_from_proto(pre_ranked).candidates
        ranked = self._rank(codec.rank_to_proto(call), timeout=_TIMEOUT_S)
        return codec.answer_from_proto(ranked).candidates


def replay_remotely(channel: grpc.Channel, model: ModelVersion, stage: Stage, folder: Path) -> None:
    """Have a cluster answer the goldens of the bundle in `folder`.

    Raises `MismatchedBundle` where an answer differs, `grpc.RpcError` where there is none.
    """
    servable: Servable
    if stage is Stage.RETRIEVAL:
        servable = RemoteRetriever(channel, model)
    else:
        servable = RemoteScorer(channel, model, stage)
    tolerance = read_manifest(folder).tolerance
    replay(servable, read_golden(folder / GOLDEN_FILE), tolerance.rtol, tolerance.atol)
