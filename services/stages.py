"""The stage services of a shard, over the models that it holds: one stage a call, or several."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import grpc

from protos.headrace.v1 import (
    cascade_service_pb2,
    cascade_service_pb2_grpc,
    pre_ranking_service_pb2,
    pre_ranking_service_pb2_grpc,
    ranking_service_pb2,
    ranking_service_pb2_grpc,
    retrieval_service_pb2,
    retrieval_service_pb2_grpc,
)
from services import codec
from services.stage_runner import StageRunner, watching
from services.worker_pool import Interest
from shards import cascade
from shards.candidates import Candidates
from shards.errors import FieldViolation, InvalidInput
from shards.release import Stage
from shards.stages import Explainer, Servable

SERVICE_NAMES = (
    "headrace.v1.RetrievalService",
    "headrace.v1.PreRankingService",
    "headrace.v1.RankingService",
    "headrace.v1.CascadeService",
)

_SHARE_TO_BEGIN = 0.7
"""Of the time of a call of several stages, that in which another scorer may begin."""


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
        answer = await self._runner.retrieve(codec.retrieve_from_proto(request), context)
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
        answer = await self._runner.score(call, Stage.PRE_RANKING, context)
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
        answer = await self._runner.score(call, Stage.RANKING, context)
        return ranking_service_pb2.RankResponse(
            header=codec.header_to_proto(answer), candidates=codec.candidates_to_proto(answer.candidates)
        )

    async def Explain(  # noqa: N802
        self,
        request: ranking_service_pb2.ExplainRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> ranking_service_pb2.ExplainResponse:
        """Answer why candidates were ranked as they are."""
        call = codec.explain_from_proto(request)

        def compute(held: Sequence[Servable], _: float, interest: Interest) -> Candidates:
            explainer = held[0]
            if not isinstance(explainer, Explainer):
                raise InvalidInput(FieldViolation("model", f"{call.model} does not tell why it ranks"))
            wanted = interest.__bool__
            return explainer.explain(call.context, call.candidates, call.count, call.task_exponents, wanted)

        timed = await self._runner.run_all("explain", [(call.model, Stage.RANKING)], compute, context)
        answer = codec.StageAnswer(
            shard_id=self._runner.shard_id,
            model=call.model,
            queue_s=timed.queue_s,
            compute_s=timed.compute_s,
            candidates=timed.value,
        )
        return ranking_service_pb2.ExplainResponse(
            header=codec.header_to_proto(answer), candidates=codec.candidates_to_proto(answer.candidates)
        )


class CascadeServicer(cascade_service_pb2_grpc.CascadeServiceServicer):
    """Consecutive stages in one call, for which the candidates stay where they are."""

    def __init__(self, runner: StageRunner) -> None:
        self._runner = runner

    async def Run(  # noqa: N802
        self,
        request: cascade_service_pb2.RunRequest,
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> cascade_service_pb2.RunResponse:
        """Answer the steps, all on one worker."""
        call = codec.cascade_from_proto(request)
        on_step = watching(call, self._runner.watch) if self._runner.watch.wants() else None

        def compute(held: Sequence[Servable], deadline: float, interest: Interest) -> cascade.CascadeResult:
            begun = time.monotonic()
            # A scorer that begins too late is computed for nobody.
            until_s = begun + _SHARE_TO_BEGIN * (deadline - begun)
            return cascade.run(call, held, until_s=until_s, wanted=interest.__bool__, on_step=on_step)

        timed = await self._runner.run_all(
            "cascade", [(step.model, step.stage) for step in call.steps], compute, context
        )
        answer = codec.CascadeAnswer(
            shard_id=self._runner.shard_id,
            queue_s=timed.queue_s,
            done=timed.value.done,
            candidates=timed.value.candidates,
        )
        return codec.cascade_answer_to_proto(answer)


def register(runner: StageRunner) -> Callable[[grpc.aio.Server], None]:
    """Return what adds the services to a server."""

    def add(server: grpc.aio.Server) -> None:
        retrieval_service_pb2_grpc.add_RetrievalServiceServicer_to_server(RetrievalServicer(runner), server)
        pre_ranking_service_pb2_grpc.add_PreRankingServiceServicer_to_server(
            PreRankingServicer(runner), server
        )
        ranking_service_pb2_grpc.add_RankingServiceServicer_to_server(RankingServicer(runner), server)
        cascade_service_pb2_grpc.add_CascadeServiceServicer_to_server(CascadeServicer(runner), server)

    return add
