"""Who is let in: who can be answered in time; all others are refused at once, not queued."""

import time
from collections.abc import Callable
from types import TracebackType

from router.answer_rate import LimitSettings, Rate, Window, places, step
from router.budget import LEAST_CALL_S, RESERVE_S, Deadline
from router.loop_lag import LoopLag
from shards.errors import DeadlineExceeded, Overloaded

_LAGS, _MOST_AHEAD = 3.0, 0.25
"""Passes of the event loop that an answer needs on its way out; the most of its time that they may take."""

_BUSY = 0.5
"""Of the places, the share from which on there is no time for work that nobody waits for."""

_USUAL_TIME_S, _SMOOTHING = 1.0, 0.1


class Admission:
    """Lets requests in by their time and the rate at which they are answered; used from one event loop."""

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
        self._rate = Rate()
        self._time_s = _USUAL_TIME_S
        """The time that requests usually have."""
        self._lag = LoopLag()
        self._since_s = clock()
        self._answered, self._peak = 0, 0
        self.in_flight = 0
        self.refused = 0
        self.lag_s = 0.0
        """How late the event loop was on average lately."""

    @property
    def limit(self) -> int:
        """Return how many requests may be in flight now, for one with the time that they usually have."""
        return places(self._rate, self._time_s, self._settings)

    @property
    def load(self) -> float:
        """Return the share of the places that are taken."""
        return self.in_flight / self.limit

    @property
    def full(self) -> bool:
        """Return whether there is no room for one more that has the usual time."""
        return self.in_flight >= self.limit

    @property
    def busy(self) -> bool:
        """Return whether half of the places are taken: no time for work that nobody waits for."""
        return self.in_flight >= _BUSY * self.limit

    def admitted(self, deadline: Deadline | None = None) -> "Admitted":
        """Return a place to hold for the time of a `with` block.

        Raises `Overloaded` when there is none, and `DeadlineExceeded` when there is no time to do anything.
        """
        time_s = self._time_s if deadline is None else deadline.remaining_s()
        if time_s < RESERVE_S + LEAST_CALL_S:
            raise DeadlineExceeded("no time is left to answer")
        self._time_s += _SMOOTHING * (time_s - self._time_s)
        if self.in_flight >= places(self._rate, time_s, self._settings):
            raise self.refusal()
        return Admitted(self)

    def refusal(self) -> Overloaded:
        """Count a request that is refused and return what it is told."""
        self.refused += 1
        return Overloaded(
            f"{self.in_flight} requests are in flight, too many to answer one more in time",
            retry_after_s=self._retry_after_s,
        )

    def sooner(self, deadline: Deadline) -> Deadline:
        """Return by when an answer must be there to leave in time, as late as the loop is now."""
        ahead_s = min(_LAGS * self.lag_s, _MOST_AHEAD * max(0.0, deadline.remaining_s()))
        return Deadline(deadline.at_s - ahead_s, deadline.clock)

    def enter(self) -> None:
        """Take a place."""
        if not self.in_flight:
            self._lag.watch()
            # A pause is a window of its own, in which nobody came.
            self._look(self._clock())
        self.in_flight += 1
        self._peak = max(self._peak, self.in_flight)

    def leave(self, *, answered: bool) -> None:
        """Give the place back."""
        self.in_flight -= 1
        self._answered += answered
        if not self.in_flight:
            self._lag.rest()
        now = self._clock()
        if not self.in_flight or now - self._since_s >= self._settings.window_s:
            self._look(now)

    def _look(self, now: float) -> None:
        """Learn from what has been since the last look, a pause in which nothing was in flight among it."""
        if now > self._since_s:
            window = Window(seconds=now - self._since_s, answered=self._answered, peak=self._peak)
            self._rate = step(self._rate, window, self._settings)
        self.lag_s = self._lag.taken_s()
        self._since_s, self._answered, self._peak = now, 0, self.in_flight


class Admitted:
    """A place among the requests in flight, held for the time of its block."""

    __slots__ = ("_admission",)

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def __enter__(self) -> None:
        self._admission.enter()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._admission.leave(answered=kind is None)
