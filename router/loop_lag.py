"""How late the event loop is: the time that everything it is asked to do waits first."""

import asyncio

_EVERY_S = 0.01


class LoopLag:
    """Measured by a timer that runs while it is `watched`; used on one event loop."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._watched = False
        self._late_s = 0.0
        self._ticks = 0

    def watch(self) -> None:
        """Measure from now on."""
        self._watched = True
        if self._timer is None:
            self._sleep(asyncio.get_running_loop())

    def rest(self) -> None:
        """Measure no more, once the timer has run."""
        self._watched = False

    def taken_s(self) -> float:
        """Return how late the loop was on average since this was asked last."""
        mean_s = self._late_s / self._ticks if self._ticks else 0.0
        self._late_s, self._ticks = 0.0, 0
        return mean_s

    def _sleep(self, loop: asyncio.AbstractEventLoop) -> None:
        due_s = loop.time() + _EVERY_S
        self._timer = loop.call_at(due_s, self._tick, loop, due_s)

    def _tick(self, loop: asyncio.AbstractEventLoop, due_s: float) -> None:
        self._late_s += max(0.0, loop.time() - due_s)
        self._ticks += 1
        self._timer = None
        if self._watched:
            self._sleep(loop)
