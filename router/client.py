"""The asynchronous Python client of a Headrace router. Needs grpc and protobuf only."""

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc
import grpc.aio

from protos.headrace.v1 import (
    event_service_pb2_grpc,
    search_service_pb2,
    search_service_pb2_grpc,
    types_pb2,
)
from router.bearer import bearer
from router.call_error import CallError, RecordError, SearchError, Violation
from router.client_events import Event, RecordResult, request_of, result_of, timestamp
from router.client_results import SearchResult, decode
from router.retry_policy import RetryBudget
from services.backoff import Backoff

__all__ = [
    "CallError",
    "Clause",
    "Event",
    "FeatureInput",
    "HeadraceClient",
    "RecordError",
    "RecordResult",
    "SearchError",
    "SearchResult",
    "Violation",
]

FeatureInput = str | float | Sequence[str]
"""A raw feature: a category or text, a number, or several categories."""

# A router that stops ends what reaches it meanwhile with CANCELLED, and all calls may be sent again. Here
# it never means that the caller gave up: asyncio tells of that by an exception of its own.
_RETRYABLE = frozenset(
    {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.CANCELLED}
)
_CHANNEL_OPTIONS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.max_receive_message_length", 64 << 20),
    # Clients of one process have connections of their own, so that routers on one port share their searches.
    ("grpc.use_local_subchannel_pool", 1),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clause:
    """One condition on an item attribute: any of some values, or a closed range; `negate` turns it round."""

    attribute: str
    any_of: tuple[str, ...] = ()
    min: float | None = None
    max: float | None = None
    negate: bool = False


class HeadraceClient:
    """Searches and records events through one router, or through several behind one gRPC target.

    Use as `async with HeadraceClient("host:port") as client`. Calls that find the router
    unavailable or overloaded are retried with back-off, at most `max_attempts` times in all and
    only while most calls succeed; never beyond the timeout of the call. A `token` goes along with
    every call; it travels in the clear, as the connection has no TLS.
    """

    def __init__(
        self,
        target: str,
        token: str | None = None,
        *,
        timeout_s: float = 2.0,
        max_attempts: int = 5,
        backoff: Backoff | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._target = target
        self._metadata = bearer(token)
        self._timeout_s = timeout_s
        self._max_attempts = max_attempts
        # A channel that lost its router connects anew after 100 ms; until then every attempt fails at once.
        self._backoff = backoff or Backoff(base_s=0.1, cap_s=1.0)
        # All that is in flight on a connection fails at once when its router dies.
        self._budget = RetryBudget(tokens=64.0)
        self._rng = rng or random.Random()

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._target, options=_CHANNEL_OPTIONS)
        self._searches = search_service_pb2_grpc.SearchServiceStub(self._channel)
        self._events = event_service_pb2_grpc.EventServiceStub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def search(
        self,
        surface: str,
        query: str = "",
        *,
        user_id: str = "",
        page_size: int | None = None,
        context: Mapping[str, FeatureInput] | None = None,
        filter: Sequence[Clause] = (),  # noqa: A002
        now_ms: int | None = None,
        explain: bool = False,
        contributions: int = 0,
        request_id: str = "",
        timeout_s: float | None = None,
        traceparent: str = "",
    ) -> SearchResult:
        """Return one page of ranked items, within `timeout_s` (the client's own when None).

        `now_ms` answers for a moment other than the release's own clock. `traceparent` is the
        caller's own span, of which the search becomes a part (W3C Trace Context). Raises `SearchError`.
        """
        request = search_service_pb2.SearchRequest(
            surface=surface,
            query=query,
            user_id=user_id,
            context={name: _feature(value) for name, value in (context or {}).items()},
            page_size=page_size,
            filter=types_pb2.Filter(clauses=[_clause(clause) for clause in filter]),
            now=None if now_ms is None else timestamp(now_ms),
            explain=explain,
            contributions=contributions,
            request_id=request_id,
        )
        trace = (("traceparent", traceparent),) if traceparent else ()
        return decode(await self._with_retries(self._searches.Search, request, timeout_s, SearchError, trace))

    async def record_events(self, events: Sequence[Event], *, timeout_s: float | None = None) -> RecordResult:
        """Record up to 1,000 events, all or none, within `timeout_s` (the client's own when None).

        Every search that begins after it sees them. Raises `RecordError`, after which some other call may
        send the same events again: each counts once.
        """
        request = request_of(events)
        return result_of(await self._with_retries(self._events.RecordEvents, request, timeout_s, RecordError))

    async def _with_retries(
        self,
        call: Callable[..., Any],
        request: object,
        timeout_s: float | None,
        error_kind: type[CallError],
        trace: tuple[tuple[str, str], ...] = (),
    ) -> Any:
        deadline = time.monotonic() + (self._timeout_s if timeout_s is None else timeout_s)
        attempt = 0
        while True:
            try:
                response = await call(
                    request, timeout=max(0.0, deadline - time.monotonic()), metadata=self._metadata + trace
                )
            except grpc.aio.AioRpcError as refusal:
                error = error_kind.of(refusal)
                delay_s = self._backoff.delay_s(attempt, self._rng) + (error.retry_after_s or 0.0)
                attempt += 1
                if not self._retries(error, attempt) or time.monotonic() + delay_s >= deadline:
                    raise error from None
                await asyncio.sleep(delay_s)
            else:
                self._budget.succeeded()
                return response

    def _retries(self, error: CallError, attempts: int) -> bool:
        """Return whether the error of the last of these attempts is worth another, and pay for it."""
        return error.code in _RETRYABLE and self._budget.failed() and attempts < self._max_attempts


def _feature(value: FeatureInput) -> types_pb2.FeatureValue:
    if isinstance(value, str):
        return types_pb2.FeatureValue(text=value)
    if isinstance(value, int | float):
        return types_pb2.FeatureValue(number=value)
    return types_pb2.FeatureValue(texts=types_pb2.TextList(values=value))


def _clause(clause: Clause) -> types_pb2.FilterClause:
    message = types_pb2.FilterClause(attribute=clause.attribute, negate=clause.negate)
    if clause.any_of:
        message.any_of.values.extend(clause.any_of)
    if clause.min is not None or clause.max is not None:
        message.range.CopyFrom(types_pb2.NumberRange(min=clause.min, max=clause.max))
    return message
