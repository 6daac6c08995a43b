"""Threads that compute off the event loop, behind a bounded queue."""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from shards.errors import DeadlineExceeded, Overloaded

T = TypeVar("T")

_RETRY_AFTER_S = 0.1


@dataclass(frozen=True, slots=True)
class Timed(Generic[T]):
    """What a computation returned, and the seconds it waited and took."""

    value: T
    queue_s: float
    compute_s: float


class WorkerPool:
    """`workers` threads, and room for `max_queue` computations that wait; made and used on one event loop."""

    def __init__(self, *, workers: int, max_queue: int) -> None:
        self._executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="compute")
        self._limit = workers + max_queue
        self._in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    @property
    def in_flight(self) -> int:
        """Return how many computations wait or run, those of callers that gave up included."""
        return self._in_flight

    async def run(self, compute: Callable[[], T], *, within_s: float) -> Timed[T]:
        """Return what `compute` returns on one of the threads.

        Raises `Overloaded` when the queue is full and `DeadlineExceeded` when the answer does not
        come in time. What expires while it waits is never computed.
        """
        if self._in_flight >= self._limit:
            raise Overloaded(f"{self._in_flight} requests are in flight", retry_after_s=_RETRY_AFTER_S)
        queued = time.monotonic()
        loop = asyncio.get_running_loop()
        job = self._executor.submit(_timed, compute, queued, queued + within_s)
        self._entered()
        # The callback runs on a worker, or here when a caller that gave up takes the job out of the queue.
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._left))
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.wrap_future(job)
        except TimeoutError as error:
            raise DeadlineExceeded(f"not computed within {within_s:.3f} s") from error

    def _entered(self) -> None:
        self._in_flight += 1
        self._idle.clear()

    def _left(self) -> None:
        self._in_flight -= 1
        if self._in_flight == 0:
            self._idle.set()

    async def wait_idle(self, timeout_s: float) -> int:
        """Wait until nothing is in flight, `timeout_s` at most; returns what still is."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            pass
        return self._in_flight


def _timed(compute: Callable[[], T], queued: float, deadline: float) -> Timed[T]:
    started = time.monotonic()
    if started >= deadline:
        raise DeadlineExceeded("expired while it waited for a worker")
    value = compute()
    return Timed(value, started - queued, time.monotonic() - started)
