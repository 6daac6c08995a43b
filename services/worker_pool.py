"""Where a shard computes: threads behind a queue that is bounded in length and in time.

What takes milliseconds is computed on the event loop itself. Two threads that want Python's lock all the time
interrupt each other in the middle of what they do, and hand over at both ends of it.
"""

import asyncio
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, Self, TypeVar

from services import queue_delay
from services.loop_turns import Turns
from services.queue_delay import QueueSettings
from shards.errors import DeadlineExceeded, Overloaded
from shards.streaming_quantile import updated

T = TypeVar("T")

_RETRY_AFTER_S = 0.1
_QUEUE = QueueSettings()

_MOST_KINDS = 1024
"""A shard that has seen months of releases must not grow."""


@dataclass(frozen=True, slots=True)
class Timed(Generic[T]):
    """What a computation returned, and the seconds it waited and took."""

    value: T
    queue_s: float
    compute_s: float


class Interest:
    """Whether somebody still waits for a computation: lost on the event loop, looked at by a worker."""

    __slots__ = ("_lost",)

    def __init__(self) -> None:
        self._lost = False

    def lose(self) -> None:
        """Say that nobody waits any more."""
        self._lost = True

    def __bool__(self) -> bool:
        return not self._lost


class WorkerPool:
    """`workers` threads, and room for `max_queue` computations that wait; made and used on one event loop.

    With one worker, a kind of computation that usually takes at most `inline_s` does without the thread.
    """

    def __init__(
        self, *, workers: int, max_queue: int, queue: QueueSettings = _QUEUE, inline_s: float = 0.0
    ) -> None:
        self._executor = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="compute")
        self._workers = workers
        self._limit = workers + max_queue
        self._settings = queue
        self._inline_s = inline_s if workers == 1 else 0.0
        self._turns = Turns()
        self._empty_at_s = time.monotonic()
        self._usual_s: float | None = None
        self._kinds_s: dict[Hashable, float] = {}
        """What each kind usually takes, noted only where some are inlined."""
        self._in_flight = 0
        self._in_threads = 0
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

    async def run(
        self,
        compute: Callable[[], T],
        *,
        within_s: float,
        interest: Interest | None = None,
        kind: Hashable = None,
    ) -> Timed[T]:
        """Return what `compute` returns, and how long it waited and took; computations of a `kind` are alike.

        Raises `Overloaded` when the queue is full, or so long that the time would not do, and
        `DeadlineExceeded` when the answer does not come in time. What expires or grows old while it waits is
        never computed, nor what its caller gave up; a computation that runs by then may ask its `interest`.
        """
        queued = time.monotonic()
        self._admit(queued, within_s)
        if not self._in_threads and self._is_short(kind):
            timed = await self._inline(compute, queued, within_s)
        else:
            timed = await self._threaded(compute, queued, within_s, interest)
        if kind is not None and self._inline_s:
            self._note(kind, timed.compute_s)
        return timed

    def _is_short(self, kind: Hashable) -> bool:
        return self._kinds_s.get(kind, self._inline_s) < self._inline_s

    def _note(self, kind: Hashable, took_s: float) -> None:
        if len(self._kinds_s) >= _MOST_KINDS and kind not in self._kinds_s:
            self._kinds_s.clear()
        self._kinds_s[kind] = updated(self._kinds_s.get(kind), took_s, quantile=0.5)

    async def _inline(self, compute: Callable[[], T], queued: float, within_s: float) -> Timed[T]:
        self._entered()
        try:
            await self._turns.turn()
            return self._timed(compute, queued, within_s)
        finally:
            self._left()

    async def _threaded(
        self, compute: Callable[[], T], queued: float, within_s: float, interest: Interest | None
    ) -> Timed[T]:
        loop = asyncio.get_running_loop()
        job = self._executor.submit(self._timed, compute, queued, within_s)
        self._entered()
        self._in_threads += 1
        # The callback runs on a worker, or here when a caller that gave up takes the job out of the queue.
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._left_thread))
        try:
            async with asyncio.timeout(within_s):
                return await asyncio.wrap_future(job)
        except TimeoutError as error:
            raise DeadlineExceeded(f"not computed within {within_s:.3f} s") from error
        finally:
            if interest is not None:
                interest.lose()

    def _admit(self, now: float, within_s: float) -> None:
        if self._in_flight >= self._limit:
            raise Overloaded(f"{self._in_flight} requests are in flight", retry_after_s=_RETRY_AFTER_S)
        if self._in_flight < self._workers:
            self._empty_at_s = now
        wait_s = queue_delay.expected_wait_s(
            usual_s=self._usual_s, ahead=self._in_flight, workers=self._workers
        )
        if queue_delay.hopeless(wait_s, usual_s=self._usual_s, within_s=within_s) or self._too_long(
            wait_s, within_s, now
        ):
            raise Overloaded(
                f"{self._in_flight} requests come first, too many for {within_s:.3f} s",
                retry_after_s=_RETRY_AFTER_S,
            )

    def _too_long(self, wait_s: float, within_s: float, now: float, *, begins: bool = False) -> bool:
        return queue_delay.too_long(
            wait_s,
            within_s=within_s,
            not_empty_s=now - self._empty_at_s,
            settings=self._settings,
            begins=begins,
        )

    def _entered(self) -> None:
        self._in_flight += 1
        self._idle.clear()

    def _left_thread(self) -> None:
        self._in_threads -= 1
        self._left()

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

    def _timed(self, compute: Callable[[], T], queued: float, within_s: float) -> Timed[T]:
        started = time.monotonic()
        waited_s = started - queued
        if waited_s >= within_s:
            raise DeadlineExceeded("expired while it waited for a worker")
        if self._too_long(waited_s, within_s, started, begins=True):
            raise Overloaded(f"waited {waited_s:.3f} s for a worker", retry_after_s=_RETRY_AFTER_S)
        value = compute()
        took_s = time.monotonic() - started
        self._usual_s = updated(self._usual_s, took_s, quantile=0.5)
        return Timed(value, waited_s, took_s)
