"""Work in the background that leaves time to others: a thread that works and rests in turns."""

import time
from collections.abc import Callable

_REST_RATIO = 50.0
_MAX_REST_S = 0.15


class Pace:
    """Of one thread; `rest` between two steps of its work, while `wanted` says that others have work too.

    A step holds Python's lock, or a core, that a request may wait for: requests that meet it are late by
    about as long as it computes. The rests leave so few of those that a p99 hardly shows them
    (`docs/performance.md` has the figures).
    """

    def __init__(
        self,
        wanted: Callable[[], bool],
        clock: Callable[[], float] = time.thread_time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._wanted = wanted
        self._clock = clock
        self._sleep = sleep
        self._rested_s = clock()

    def rest(self) -> None:
        """Sleep many times as long as this thread computed since the last rest, within a fixed limit."""
        worked_s = self._clock() - self._rested_s
        if worked_s > 0 and self._wanted():
            self._sleep(min(_REST_RATIO * worked_s, _MAX_REST_S))
        self._rested_s = self._clock()


def no_rest() -> None:
    """Go on at once, as where nobody else waits."""
