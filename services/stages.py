"""The stage services of a shard, over the models that it holds: one stage a call, or several."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar, cast

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
from services.chassis import STAGE_DEADLINE_S, remaining_s
from services.on_demand import OnDemandLoads
from services.stage_observer import StageObserver
from services.worker_pool import Interest, Timed, WorkerPool
from shards import cascade
from shards.candidates import Candidates
from shards.errors import FieldViolation, InvalidInput, Unavailable
from shards.release import ModelVersion, Stage
from shards.residency import Residency
from shards.stages import Explainer, Retriever, Scorer, Servable

SERVICE_NAMES = (
    "headrace.v1.RetrievalService",
    "headrace.v1.PreRankingService",
    "headrace.v1.RankingService",
    "headrace.v1.CascadeService",
)


T = TypeVar("T")

_MOST_TO_TELL_S, _SHARE_TO_TELL = 0.1, 0.25
"""Of a call's time, what is kept back to answer that the model is still loading."""

_SHARE_TO_BEGIN = 0.7
"""Of the time of a call of several stages, that in which another scorer may begin."""


class StageRunner:
    """Runs stage calls on the worker pool; refuses new ones once the shard drains."""

    def __init__(
        self, residency: Residency, pool: WorkerPool, on_demand: OnDemandLoads, observer: StageObserver
    ) -> None:
        self.shard_id = observer.shard_id
        self._observer = observer
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
        """Return the answer of a model that this shard holds; raises what `run_all` raises."""
        timed = await self.run_all(stage.value, [(model, stage)], lambda held, *_: compute(held[0]), context)
        return codec.StageAnswer(
            shard_id=self.shard_id,
            model=model,
            queue_s=timed.queue_s,
            compute_s=timed.compute_s,
            candidates=timed.value,
        )

    async def run_all(
        self,
        method: str,
        models: Sequence[tuple[ModelVersion, Stage]],
        compute: Callable[[Sequence[Servable], float, Interest], T],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> Timed[T]:
        """Return what `compute` makes of models that this shard holds, in the time the caller gives.

        It gets what answers for the models, the monotonic second until which that is of use, and whether
        somebody still waits for it. One that is held on demand is loaded first. Raises `NotOwner`,
        `Unavailable` when draining or when a model cannot be loaded, `Overloaded`, `DeadlineExceeded`, and
        what the models raise.
        """
        with self._observer.watching(method, models, context) as watched:
            timed = await self._run_all(method, models, compute, context)
            watched.timed(timed)
            return timed

    async def _run_all(
        self,
        method: str,
        models: Sequence[tuple[ModelVersion, Stage]],
        compute: Callable[[Sequence[Servable], float, Interest], T],
        context: "grpc.aio.ServicerContext[Any, Any]",
    ) -> Timed[T]:
        if self.draining:
            raise Unavailable(f"shard {self.shard_id!r} is draining")
        deadline = time.monotonic() + remaining_s(context, default_s=STAGE_DEADLINE_S)
        with ExitStack() as taken:
            held = [await self._take(model, stage, deadline, taken) for model, stage in models]
            interest = Interest()
            return await self._pool.run(
                lambda: compute(held, deadline, interest),
                within_s=deadline - time.monotonic(),
                interest=interest,
                kind=(method, *models),
            )

    async def _take(self, model: ModelVersion, stage: Stage, deadline: float, taken: ExitStack) -> Servable:
        servable = self._residency.take(model, stage)
        while servable is None:
            # A caller learns that it loads while there is time to say so.
            left_s = deadline - time.monotonic()
            await self._on_demand.loaded(model, left_s - min(_MOST_TO_TELL_S, _SHARE_TO_TELL * left_s))
            servable = self._residency.take(model, stage)

        def give(failed: type[BaseException] | None, *_: object) -> None:
            self._residency.give(model, answered=failed is None)

        taken.push(give)
        return servable


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
            retriever = cast(Retriever, servable)
            return retriever.retrieve(
                call.context, call.k, call.filter, call.attributes, call.attribute_count
            )

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

        def compute(held: Sequence[Servable], deadline: float, interest: Interest) -> cascade.CascadeResult:
            begun = time.monotonic()
            # A scorer that begins too late is computed for nobody.
            until_s = begun + _SHARE_TO_BEGIN * (deadline - begun)
            return cascade.run(call, held, until_s=until_s, wanted=interest.__bool__)

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


def _scoring(call: codec.Scoring) -> Callable[[Servable], Candidates]:
    def compute(servable: Servable) -> Candidates:
        return cast(Scorer, servable).score(
            call.context,
            call.candidates,
            call.keep,
            call.task_exponents,
            call.attributes,
            call.attribute_count,
        )

    return compute


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
