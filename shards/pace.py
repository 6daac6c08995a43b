"""Work in the background that leaves time to others: a thread that works and rests in turns."""

import time
from collections.abc import Callable


class Pace:
    """Of one thread; `rest` between two steps of its work, while `wanted` says that others have work too.

    A step holds Python's lock, or a core, that a request may wait for. After it the thread sleeps for as
    long as it computed, so that requests which come meanwhile do not wait behind the next one too.
    """

    def __init__(self, wanted: Callable[[], bool], clock: Callable[[], float] = time.thread_time) -> None:
        self._wanted = wanted
        self._clock = clock
        self._rested_s = clock()

    def rest(self) -> None:
        """Sleep for as long as this thread computed since it last did."""
        worked_s = self._clock() - self._rested_s
        if self._wanted():
            time.sleep(max(worked_s, 0.0))
        self._rested_s = self._clock()


def no_rest() -> None:
    """Go on at once, as where nobody else waits."""
