"""The attempts of one call: requests to shards that run beside each other, and the first to end.

Without a task or a queue of its own, as nearly every call ends with its first attempt.
"""

import asyncio
from collections import deque
from dataclasses import dataclass

import grpc.aio

from router.routing_table import Endpoint

_LEAST_S = 0.002

RunningCall = grpc.aio.UnaryUnaryCall[bytes, bytes]


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """A request to one replica, sent at the monotonic second `sent_s`."""

    replica: Endpoint
    running: RunningCall
    sent_s: float


class Race:
    """Attempts in the order in which they ended, and those that run."""

    __slots__ = ("_ended", "_loop", "_wake", "running", "tried")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake: asyncio.Future[None] | None = None
        self._ended: deque[Attempt] = deque()
        self.running: list[Attempt] = []
        self.tried: list[Endpoint] = []

    def enter(self, attempt: Attempt) -> None:
        """Let an attempt take part."""
        self.tried.append(attempt.replica)
        self.running.append(attempt)
        attempt.running.add_done_callback(lambda _: self._end(attempt))

    async def next(self, patience_s: float | None) -> Attempt | None:
        """Return the next attempt that ends, or None when the patience does before."""
        while not self._ended:
            due_s = None if patience_s is None else self._loop.time() + patience_s
            await self._woken(due_s)
            # If it is much later, this process was held up itself, and answers may lie there unread.
            if (
                not self._ended
                and due_s is not None
                and self._loop.time() - due_s < max(patience_s or 0.0, _LEAST_S)
            ):
                return None
        attempt = self._ended.popleft()
        self.running.remove(attempt)
        return attempt

    async def _woken(self, due_s: float | None) -> None:
        self._wake = self._loop.create_future()
        timer = None if due_s is None else self._loop.call_at(due_s, self._ring)
        try:
            await self._wake
        finally:
            self._wake = None
            if timer is not None:
                timer.cancel()

    def _end(self, attempt: Attempt) -> None:
        self._ended.append(attempt)
        self._ring()

    def _ring(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
