"""Runs the stage calls of a shard on its workers, over the bundles that it holds."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar, cast

import grpc

from services import codec
from services.chassis import STAGE_DEADLINE_S, remaining_s
from services.live_watch import LiveWatch, Sample
from services.on_demand import OnDemandLoads
from services.stage_observer import StageObserver
from services.worker_pool import Interest, Timed, WorkerPool
from shards.candidates import Candidates
from shards.cascade import CascadeCall, CascadeStep, OnStep
from shards.errors import Unavailable
from shards.release import ModelVersion, Stage
from shards.residency import Residency
from shards.stages import Retriever, Scorer, Servable

T = TypeVar("T")

_MOST_TO_TELL_S, _SHARE_TO_TELL = 0.1, 0.25
"""Of a call's time, what is kept back to answer that the model is still loading."""


class StageRunner:
    """Runs stage calls on the worker pool; refuses new ones once the shard drains."""

    def __init__(
        self,
        residency: Residency,
        pool: WorkerPool,
        on_demand: OnDemandLoads,
        observer: StageObserver,
        watch: LiveWatch,
    ) -> None:
        self.watch = watch
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

    async def retrieve(
        self, call: codec.Retrieval, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> codec.StageAnswer:
        """Return what a model that this shard holds finds; raises what `run_all` raises."""
        answer = await self.run(call.model, Stage.RETRIEVAL, _retrieving(call), context)
        if self.watch.wants():
            self.watch.offer(
                Sample(
                    model=call.model,
                    stage=Stage.RETRIEVAL,
                    context=call.context,
                    answer=answer.candidates,
                    k=call.k,
                    allowed=call.filter,
                )
            )
        return answer

    async def score(
        self, call: codec.Scoring, stage: Stage, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> codec.StageAnswer:
        """Return the scores of a model that this shard holds; raises what `run_all` raises."""
        answer = await self.run(call.model, stage, _scoring(call), context)
        if self.watch.wants():
            self.watch.offer(
                Sample(
                    model=call.model,
                    stage=stage,
                    context=call.context,
                    answer=answer.candidates,
                    asked=call.candidates,
                )
            )
        return answer

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


def watching(call: CascadeCall, watch: LiveWatch) -> OnStep:
    """Return what leaves a sample of each step of a call."""

    def on_step(step: CascadeStep, asked: Candidates | None, answer: Candidates) -> None:
        watch.offer(
            Sample(
                model=step.model,
                stage=step.stage,
                context=call.context,
                answer=answer,
                asked=asked,
                k=step.keep,
                allowed=call.filter,
            )
        )

    return on_step


def _retrieving(call: codec.Retrieval) -> Callable[[Servable], Candidates]:
    def compute(servable: Servable) -> Candidates:
        return cast(Retriever, servable).retrieve(
            call.context, call.k, call.filter, call.attributes, call.attribute_count
        )

    return compute


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
