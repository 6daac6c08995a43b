"""Watches every search from its arrival to its end: figures, span and log, all in one place."""

import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

import grpc.aio

from router.answer import Answer
from router.search_log import SearchLog
from router.search_measures import SearchMeasures
from router.seen_search import SeenSearch
from services import tracing
from services.codec import SearchRequest
from services.status import word_of
from services.telemetry_settings import SILENT, Telemetry
from services.tracing import Span, Tracing, Within
from shards.release import Release


class SearchObserver:
    """Observes searches; without `tracing` none has a span."""

    def __init__(
        self,
        settings: Telemetry = SILENT,
        tracing: Tracing | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.measures = SearchMeasures(per_model=settings.metrics.per_model)
        self._log = SearchLog(settings.logs, rng or random.Random())
        self._tracing = tracing
        self._clock = clock

    def watching(self, context: "grpc.aio.ServicerContext[Any, Any]") -> "WatchedSearch":
        """Return the block of one search; what ends it is noted."""
        span = self._tracing.begin("search", context.invocation_metadata() or ()) if self._tracing else None
        return WatchedSearch(self, span, self._clock())

    def ended(self, search: "WatchedSearch", error: BaseException | None) -> None:
        """Note the end of a search."""
        now_s = self._clock()
        seen = SeenSearch(
            status="ok" if error is None else word_of(error),
            took_s=now_s - search.began_s,
            request_id=search.asked.request_id if search.asked else "",
            trace_id=search.span.trace_id if search.span else "",
            generation=search.generation,
            asked=search.asked,
            release=search.release,
            answer=search.answer if error is None else None,
            error="" if error is None else str(error),
        )
        self.measures.ended(seen)
        self._log.note(seen, now_s)
        if search.span:
            search.span.tell(_attributes(seen))


class WatchedSearch:
    """One search while it is under way."""

    __slots__ = ("_observer", "_within", "answer", "asked", "began_s", "generation", "release", "span")

    def __init__(self, observer: SearchObserver, span: Span | None, began_s: float) -> None:
        self._observer = observer
        self._within = Within(span)
        self.span = span
        self.began_s = began_s
        self.asked: SearchRequest | None = None
        self.release: Release | None = None
        self.answer: Answer | None = None
        self.generation = 0

    def __enter__(self) -> Self:
        self._within.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._observer.ended(self, error)
        self._within.__exit__(kind, error, trace)

    def asks(self, asked: SearchRequest, release: Release, generation: int) -> None:
        """Note what is asked, and what shall answer it."""
        self.asked, self.release, self.generation = asked, release, generation


def _attributes(seen: SeenSearch) -> dict[str, tracing.Value]:
    attributes: dict[str, tracing.Value] = {
        "headrace.surface": seen.surface,
        "headrace.release": seen.release.version if seen.release else "",
        "headrace.generation": seen.generation,
        "headrace.request_id": seen.request_id,
        "headrace.status": seen.status,
    }
    if answer := seen.answer:
        attributes["headrace.items"] = len(answer.items)
        attributes["headrace.gaps"] = [
            "/".join(filter(None, (gap.stage.value if gap.stage else "user", gap.channel, gap.reason.value)))
            for gap in answer.gaps
        ]
    return attributes
