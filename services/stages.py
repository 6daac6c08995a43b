"""The three stage services of a shard, over the models that it holds."""

import time
from collections.abc import Callable
from typing import Any

import grpc

from protos.headrace.v1 import (
    pre_ranking_service_pb2,
    pre_ranking_service_pb2_grpc,
    ranking_service_pb2,
    ranking_service_pb2_grpc,
    retrieval_service_pb2,
    retrieval_service_pb2_grpc,
)
from services import codec
from services.chassis import STAGE_DEADLINE_S, remaining_s
from services.on_demand import OnDemandLoads
from services.worker_pool import WorkerPool
from shards.candidates import Candidates
from shards.errors import Unavailable
from shards.release import ModelVersion, Stage
from shards.residency import Residency
from shards.stages import Retriever, Scorer, Servable

SERVICE_NAMES = (
    "headrace.v1.RetrievalService",
    "headrace.v1.PreRankingService",
    "headrace.v1.RankingService",
)


_MOST_TO_TELL_S, _SHARE_TO_TELL = 0.1, 0.25
"""Of a call's time, what is kept back to answer that the model is still loading."""


class StageRunner:
    """Runs stage calls on the worker pool; refuses new ones once the shard drains."""

    def __init__(
        self, shard_id: str, residency: Residency, pool: WorkerPool, on_demand: OnDemandLoads
    ) -> None:
        self._shard_id = shard_id
        self._residency = residency
        self._pool = pool
        self._on_demand = on_demand
        self.draining = False

    async def run(
        self,
        model: ModelVersion,
        stage: Stage,
        compute: Callable[[Servable], Candidates],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> codec.StageAnswer:
        """Return the answer of a model that this shard holds, in the time the caller gives.

        One that is held on demand is loaded first. Raises `NotOwner`, `Unavailable` when draining or when
        the model cannot be loaded, `Overloaded`, `DeadlineExceeded`, and what the model raises.
        """
        if self.draining:
            raise Unavailable(f"shard {self._shard_id!r} is draining")
        deadline = time.monotonic() + remaining_s(context, default_s=STAGE_DEADLINE_S)
        servable = self._residency.take(model, stage)
        while servable is None:
            # A caller learns that it loads while there is time to say so.
            left_s = deadline - time.monotonic()
            await self._on_demand.loaded(model, left_s - min(_MOST_TO_TELL_S, _SHARE_TO_TELL * left_s))
            servable = self._residency.take(model, stage)
        answered = False
        try:
            timed = await self._pool.run(lambda: compute(servable), within_s=deadline - time.monotonic())
            answered = True
        finally:
            self._residency.give(model, answered=answered)
        return codec.StageAnswer(
            shard_id=self._shard_id,
            model=model,
            queue_s=timed.queue_s,
            compute_s=timed.compute_s,
            candidates=timed.value,
        )


class RetrievalServicer(retrieval_service_pb2_grpc.RetrievalServiceServicer):
    """Candidates from the whole catalogue."""

    def __init__(self, runner: StageRunner) -> None:
        self._runner = runner

    async def Retrieve(  # noqa: N802
        self,
        request: retrieval_service_pb2.RetrieveRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> retrieval_service_pb2.RetrieveResponse:
        """Answer one retrieval."""
        call = codec.retrieve_from_proto(request)

        def compute(servable: Servable) -> Candidates:
            assert isinstance(servable, Retriever)
            return servable.retrieve(call.context, call.k, call.filter, call.attributes, call.attribute_count)

        answer = await self._runner.run(call.model, Stage.RETRIEVAL, compute, context)
        return retrieval_service_pb2.RetrieveResponse(
            header=codec.header_to_proto(answer), candidates=codec.candidates_to_proto(answer.candidates)
        )


class PreRankingServicer(pre_ranking_service_pb2_grpc.PreRankingServiceServicer):
    """Thousands of candidates down to hundreds."""

    def __init__(self, runner: StageRunner) -> None:
        self._runner = runner

    async def PreRank(  # noqa: N802
        self,
        request: pre_ranking_service_pb2.PreRankRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> pre_ranking_service_pb2.PreRankResponse:
        """Answer one pre-ranking."""
        call = codec.pre_rank_from_proto(request)
        answer = await self._runner.run(call.model, Stage.PRE_RANKING, _scoring(call), context)
        return pre_ranking_service_pb2.PreRankResponse(
            header=codec.header_to_proto(answer), candidates=codec.candidates_to_proto(answer.candidates)
        )


class RankingServicer(ranking_service_pb2_grpc.RankingServiceServicer):
    """Hundreds of candidates for the page."""

    def __init__(self, runner: StageRunner) -> None:
        self._runner = runner

    async def Rank(  # noqa: N802
        self,
        request: ranking_service_pb2.RankRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> ranking_service_pb2.RankResponse:
        """Answer one ranking."""
        call = codec.rank_from_proto(request)
        answer = await self._runner.run(call.model, Stage.RANKING, _scoring(call), context)
        return ranking_service_pb2.RankResponse(
            header=codec.header_to_proto(answer), candidates=codec.candidates_to_proto(answer.candidates)
        )


def _scoring(call: codec.Scoring) -> Callable[[Servable], Candidates]:
    def compute(servable: Servable) -> Candidates:
        assert isinstance(servable, Scorer)
        return servable.score(
            call.context,
            call.candidates,
            call.keep,
            call.task_exponents,
            call.attributes,
            call.attribute_count,
        )

    return compute


def register(runner: StageRunner) -> Callable[[grpc.aio.Server], None]:
    """Return what adds the three services to a server."""

    def add(server: grpc.aio.Server) -> None:
        retrieval_service_pb2_grpc.add_RetrievalServiceServicer_to_server(RetrievalServicer(runner), server)
        pre_ranking_service_pb2_grpc.add_PreRankingServiceServicer_to_server(
            PreRankingServicer(runner), server
        )
        ranking_service_pb2_grpc.add_RankingServiceServicer_to_server(RankingServicer(runner), server)

    return add
