"""What each caller has taken lately, and whether there is more for it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from services.access import Caller, Quota
from shards.errors import Overloaded

_COME_BACK_S = 0.1
"""When to try again while too many calls are in flight: nobody knows when one ends."""


@dataclass(slots=True)
class _Taken:
    tokens: float
    at_s: float
    in_flight: int = 0


class Quotas:
    """Counts the calls of callers with a quota, by name; used from one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._taken: dict[str, _Taken] = {}

    @contextmanager
    def taking(self, caller: Caller) -> Iterator[None]:
        """Hold one call of the caller; raises `Overloaded` where that is one too many."""
        taken = self._of(caller)
        quota = caller.quota
        if quota.in_flight and taken.in_flight >= quota.in_flight:
            raise Overloaded(
                f"caller {caller.name!r} has {quota.in_flight} calls in flight, as many as it may",
                retry_after_s=_COME_BACK_S,
            )
        self._spend(caller, taken)
        taken.in_flight += 1
        try:
            yield
        finally:
            taken.in_flight -= 1

    def _of(self, caller: Caller) -> _Taken:
        taken = self._taken.get(caller.name)
        if taken is None:
            taken = _Taken(_burst(caller.quota), self._clock())
            self._taken[caller.name] = taken
        return taken

    def _spend(self, caller: Caller, taken: _Taken) -> None:
        rate = caller.quota.requests_per_s
        if not rate:
            return
        now = self._clock()
        taken.tokens = min(_burst(caller.quota), taken.tokens + rate * (now - taken.at_s))
        taken.at_s = now
        if taken.tokens < 1.0:
            raise Overloaded(
                f"caller {caller.name!r} may call {rate:g} times a second",
                retry_after_s=(1.0 - taken.tokens) / rate,
            )
        taken.tokens -= 1.0


def _burst(quota: Quota) -> float:
    return quota.burst or max(1.0, quota.requests_per_s)
