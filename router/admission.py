"""Who is let in: as many requests as the limit allows; what exceeds it is refused at once, not queued."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType

from router.budget import LEAST_CALL_S, RESERVE_S, Deadline
from router.concurrency_limit import Limit, LimitSettings, Window, step
from router.loop_lag import LoopLag
from shards.errors import DeadlineExceeded, Overloaded

_LAGS, _MOST_AHEAD = 3.0, 0.25
"""Passes of the event loop that an answer needs on its way out; the most of its time that they may take."""

_BUSY = 0.5
"""Of the places, the share from which on there is no time for work that nobody waits for."""


class Admission:
    """A limit of requests in flight that follows how long they take; used from one event loop."""

    def __init__(
        self,
        settings: LimitSettings,
        *,
        retry_after_s: float = 0.1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._retry_after_s = retry_after_s
        self._clock = clock
        self._limit = Limit(size=float(settings.start))
        self._lag = LoopLag()
        self._since_s = clock()
        self._answered, self._took_s, self._overdue, self._peak = 0, 0.0, 0, 0
        self.in_flight = 0
        self.refused = 0
        self.lag_s = 0.0
        """How late the event loop was on average lately."""

    @property
    def limit(self) -> int:
        """Return how many requests may be in flight now."""
        return self._limit.requests

    @property
    def load(self) -> float:
        """Return the share of the places that are taken."""
        return self.in_flight / self._limit.size

    @property
    def busy(self) -> bool:
        """Return whether half of the places are taken: no time for work that nobody waits for."""
        return self.in_flight >= _BUSY * self._limit.size

    def admitted(self, deadline: Deadline | None = None) -> "Admitted":
        """Return a place to hold for the time of a `with` block.

        Raises `Overloaded` when there is none, and `DeadlineExceeded` when there is no time to do anything.
        """
        if deadline is not None and deadline.remaining_s() < RESERVE_S + LEAST_CALL_S:
            raise DeadlineExceeded("no time is left to answer")
        if self.in_flight >= self._limit.requests:
            self.refused += 1
            self._peak = max(self._peak, self.in_flight)
            raise Overloaded(
                f"{self._limit.requests} requests are in flight, the limit", retry_after_s=self._retry_after_s
            )
        return Admitted(self)

    def sooner(self, deadline: Deadline) -> Deadline:
        """Return by when an answer must be there to leave in time, as late as the loop is now."""
        ahead_s = min(_LAGS * self.lag_s, _MOST_AHEAD * max(0.0, deadline.remaining_s()))
        return Deadline(deadline.at_s - ahead_s, deadline.clock)

    def enter(self) -> float:
        """Take a place; returns the moment."""
        if not self.in_flight:
            self._lag.watch()
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)
        return self._clock()

    def leave(self, entered_s: float, failure: type[BaseException] | None) -> None:
        """Give the place back and learn from the time that the request took."""
        self.in_flight -= 1
        if not self.in_flight:
            self._lag.rest()
        now = self._clock()
        if failure is None:
            self._answered += 1
            self._took_s += now - entered_s
        elif issubclass(failure, Overloaded) or self._late(failure, now - entered_s):
            self._overdue += 1
        if now - self._since_s >= self._settings.window_s:
            self._look(now)

    def _late(self, failure: type[BaseException], took_s: float) -> bool:
        """Return whether time ran out here; a caller who gives none, or goes away at once, tells nothing."""
        if not issubclass(failure, DeadlineExceeded | asyncio.CancelledError):
            return False
        usual_s = self._limit.usual_s
        return usual_s is not None and took_s > self._settings.tolerance * usual_s

    def _look(self, now: float) -> None:
        self.lag_s = self._lag.taken_s()
        window = Window(
            answered=self._answered,
            took_s=self._took_s / self._answered if self._answered else 0.0,
            overdue=self._overdue,
            peak=self._peak,
            lag_s=self.lag_s,
        )
        self._limit = step(self._limit, window, self._settings)
        self._since_s = now
        self._answered, self._took_s, self._overdue, self._peak = 0, 0.0, 0, self.in_flight


class Admitted:
    """A place among the requests in flight, held for the time of its block."""

    __slots__ = ("_admission", "_entered_s")

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def __enter__(self) -> None:
        self._entered_s = self._admission.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.leave(self._entered_s, kind)
