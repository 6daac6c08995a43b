"""When the Python client asks again and when it gives up: one deadline a call, one budget for all of them."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import grpc
import grpc.aio

from router.call_error import CallError
from router.retry_policy import RetryBudget
from services.backoff import Backoff

T = TypeVar("T")

Ask = Callable[[int, float], Awaitable[T]]
"""Asks for the n-th time, counted from 0, within a time in seconds; raises `AioRpcError`."""

# A router that stops ends what reaches it meanwhile with CANCELLED, and all calls may be sent again. Here
# it never means that the caller gave up: asyncio tells of that by an exception of its own.
GONE = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED})
"""Codes of a router that another one may stand in for at once."""


# A channel that lost its router connects anew after 100 ms; until then every attempt fails at once.
DEFAULT_BACKOFF = Backoff(base_s=0.1, cap_s=1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRules:
    """At most `max_attempts` times in all, the first of them on as many routers as there are without a wait.

    An attempt ends after `attempt_timeout_s`, where that is set, so that a router that hangs leaves time for
    another.
    """

    max_attempts: int
    attempt_timeout_s: float | None = None

    def __post_init__(self) -> None:
        if self.max_attempts < 1:
            raise ValueError(f"max_attempts must be at least 1, not {self.max_attempts}")
        if self.attempt_timeout_s is not None and self.attempt_timeout_s <= 0:
            raise ValueError(f"attempt_timeout_s must be positive, not {self.attempt_timeout_s}")


class Retries:
    """Repeats calls that may be sent twice, of which `routers` may each be asked."""

    def __init__(self, rules: RetryRules, backoff: Backoff, routers: int, rng: random.Random) -> None:
        self._rules = rules
        self._backoff = backoff
        self._routers = routers
        self._rng = rng
        # All that is in flight on a connection fails at once when its router dies.
        self._budget = RetryBudget(tokens=64.0)

    async def call(self, ask: Ask[T], timeout_s: float, error_kind: type[CallError]) -> T:
        """Return what `ask` returns in the end, within `timeout_s` for all attempts; raises `error_kind`."""
        deadline = time.monotonic() + timeout_s
        attempt = gone = 0
        while True:
            try:
                answer = await ask(attempt, self._time_for_one(deadline))
            except grpc.aio.AioRpcError as refusal:
                error = error_kind.of(refusal)
                gone += error.code in GONE
                at_once = error.code in GONE and gone < self._routers
                delay_s = 0.0 if at_once else self._delay_s(error, attempt)
                attempt += 1
                if not self._again(error, attempt) or time.monotonic() + delay_s >= deadline:
                    raise error from None
                await asyncio.sleep(delay_s)
            else:
                self._budget.succeeded()
                return answer

    def _time_for_one(self, deadline: float) -> float:
        left_s = max(0.0, deadline - time.monotonic())
        most_s = self._rules.attempt_timeout_s
        return left_s if most_s is None else min(left_s, most_s)

    def _delay_s(self, error: CallError, attempt: int) -> float:
        return self._backoff.delay_s(attempt, self._rng) + (error.retry_after_s or 0.0)

    def _again(self, error: CallError, attempts: int) -> bool:
        """Return whether the error of the last of these attempts is worth another, and pay for it."""
        worth = error.code in GONE or error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        if error.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            worth = self._rules.attempt_timeout_s is not None
        return worth and self._budget.failed() and attempts < self._rules.max_attempts
