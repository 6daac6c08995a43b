"""Spans of what a process does for one search, as the code that does it sees them.

Nothing here needs OpenTelemetry. Where spans go anywhere, `services.otel_tracing` makes them; else there is
never a current span, and asking for one is all that tracing costs.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar, Token
from types import TracebackType
from typing import Protocol

from services.telemetry_settings import ProcessTelemetry
from shards.errors import Unavailable

TRACEPARENT, TRACESTATE = "traceparent", "tracestate"
"""Keys of gRPC metadata; see https://www.w3.org/TR/trace-context/."""

Value = str | bool | int | float | Sequence[str]
Metadata = Iterable[tuple[str, str | bytes]]


class Span(Protocol):
    """Something that takes time, as a part of a trace that is recorded."""

    @property
    def trace_id(self) -> str:
        """Return the trace's id, 32 hexadecimal digits."""

    @property
    def traceparent(self) -> str:
        """Return what tells others that they work for this span."""

    def child(self, name: str, *, start_ns: int | None = None, calls: bool = False) -> "Span":
        """Return a part of this span, from now on or since a time of the epoch; `calls` another process."""

    def tell(self, attributes: Mapping[str, Value]) -> None:
        """Add what is known of it."""

    def end(self, *, error: str = "", end_ns: int | None = None) -> None:
        """End it, now or at a time of the epoch; with an error it has failed."""


class Tracing(Protocol):
    """Decides which calls are traced, and records them."""

    def begin(self, name: str, metadata: Metadata) -> Span | None:
        """Return the span of a call that came with this metadata, None for one that is not traced."""

    def close(self) -> None:
        """Send on what is recorded; blocks for a few seconds at most."""


_CURRENT: ContextVar[Span | None] = ContextVar("headrace_span", default=None)


def current() -> Span | None:
    """Return the span that this task works for, None where nothing is traced."""
    return _CURRENT.get()


def outgoing() -> tuple[tuple[str, str], ...] | None:
    """Return the metadata of a call that is made for the current span."""
    span = _CURRENT.get()
    return None if span is None else ((TRACEPARENT, span.traceparent),)


class Within:
    """Makes a span, or none, the current one of its block; it ends with the block, and fails with it."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: Span | None) -> None:
        self._span = span
        self._token: Token[Span | None] | None = None

    def __enter__(self) -> Span | None:
        if self._span is not None:
            self._token = _CURRENT.set(self._span)
        return self._span

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is not None and self._token is not None:
            _CURRENT.reset(self._token)
            self._span.end(error="" if kind is None else kind.__name__)


_NOWHERE = Within(None)


def part(name: str, *, calls: bool = False) -> Within:
    """Return the block of a part of the current span; without one it gives None and records nothing."""
    span = _CURRENT.get()
    return _NOWHERE if span is None else Within(span.child(name, calls=calls))


def _opened(telemetry: ProcessTelemetry, *, roots: bool) -> Tracing | None:
    if not telemetry.settings.traces.on:
        return None
    try:
        from services.otel_tracing import OtelTracing
    except ModuleNotFoundError as error:
        raise Unavailable(f"traces need {error.name}: pip install 'headrace[telemetry]'") from error
    return OtelTracing(telemetry, roots=roots)


@asynccontextmanager
async def running_tracing(telemetry: ProcessTelemetry, *, roots: bool) -> AsyncIterator[Tracing | None]:
    """Give what records this process's spans while the block runs, and send on at its end what is left.

    Without `roots` only what a traced call asks for is recorded. Raises `Unavailable` where OpenTelemetry is
    asked for and not installed.
    """
    tracing = _opened(telemetry, roots=roots)
    try:
        yield tracing
    finally:
        if tracing is not None:
            await asyncio.to_thread(tracing.close)
