"""Watches every call of a shard's stages: figures and spans in one place, beside what computes."""

import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import grpc

from services.status import word_of
from services.tracing import Span, Tracing, Within
from services.worker_pool import Timed
from shards.cascade import CascadeResult
from shards.measures import Counts, Distributions
from shards.release import ModelVersion, Stage

Models = Sequence[tuple[ModelVersion, Stage]]


class StageObserver:
    """Observes the calls of one shard; without `tracing` none has a span. Used on its event loop only."""

    def __init__(self, shard_id: str, tracing: Tracing | None = None, *, per_model: bool = False) -> None:
        self.shard_id = shard_id
        self.calls = Counts("method", "status")
        self.queue_s = Distributions("method")
        self.compute_s = Distributions("method")
        self.stage_compute_s = Distributions("stage", *(("model",) if per_model else ()))
        self.per_model = per_model
        self._tracing = tracing

    def watching(
        self, method: str, models: Models, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> "WatchedCall":
        """Return the block of one call."""
        span = None
        if self._tracing is not None:
            span = self._tracing.begin(f"shard.{method}", context.invocation_metadata() or ())
        return WatchedCall(self, method, models, span)

    def timed(self, method: str, models: Models, timed: Timed[Any]) -> None:
        """Count what a call that was answered has waited and computed."""
        self.queue_s.observe(timed.queue_s, method)
        self.compute_s.observe(timed.compute_s, method)
        for (model, stage), took_s, _ in steps_of(models, timed):
            named = (str(model),) if self.per_model else ()
            self.stage_compute_s.observe(took_s, stage.value, *named)


class WatchedCall:
    """One call while it is under way."""

    __slots__ = ("_method", "_models", "_observer", "_span", "_within")

    def __init__(self, observer: StageObserver, method: str, models: Models, span: Span | None) -> None:
        self._observer = observer
        self._method = method
        self._models = models
        self._span = span
        self._within = Within(span)

    def __enter__(self) -> Self:
        if self._span is not None:
            names = [str(model) for model, _ in self._models]
            self._span.tell({"headrace.shard": self._observer.shard_id, "headrace.model": names})
        self._within.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._observer.calls.add(self._method, "ok" if error is None else word_of(error))
        self._within.__exit__(kind, error, trace)

    def timed(self, timed: Timed[Any]) -> None:
        """Note what the answer has waited and computed."""
        self._observer.timed(self._method, self._models, timed)
        if self._span is not None:
            _add_parts(self._span, self._models, timed, time.time_ns())


def steps_of(
    models: Models, timed: Timed[Any]
) -> Sequence[tuple[tuple[ModelVersion, Stage], float, int | None]]:
    """Return each step that was done, what it computed and, of several in one call, its candidates."""
    if isinstance(timed.value, CascadeResult):
        done = timed.value.done
        return [(step, d.compute_s, d.candidates) for step, d in zip(models, done, strict=False)]
    return [(models[0], timed.compute_s, None)]


def _add_parts(span: Span, models: Models, timed: Timed[Any], now_ns: int) -> None:
    """Add queue, compute and steps, of which only durations are known: they ended just now."""
    begun_ns = now_ns - _ns(timed.compute_s)
    span.child("queue", start_ns=begun_ns - _ns(timed.queue_s)).end(end_ns=begun_ns)
    compute = span.child("compute", start_ns=begun_ns)
    for (model, stage), took_s, candidates in steps_of(models, timed):
        step = compute.child(stage.value, start_ns=begun_ns)
        step.tell({"headrace.model": str(model), "headrace.stage": stage.value})
        if candidates is not None:
            step.tell({"headrace.candidates": candidates})
        begun_ns += _ns(took_s)
        step.end(end_ns=begun_ns)
    compute.end(end_ns=now_ns)


def _ns(seconds: float) -> int:
    return round(seconds * 1e9)
