"""A thread that writes what an event loop hands it, many requests in one commit.

A commit waits for the disk. Whatever is handed in meanwhile is committed together next, so that the disk is
waited for once and not once for each (group commit: DeWitt et al. 1984, "Implementation techniques for main
memory database systems").
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from shards.errors import DeadlineExceeded, Overloaded

Request = TypeVar("Request")
Result = TypeVar("Result")

_RETRY_AFTER_S = 0.5


class GroupCommit(Generic[Request, Result]):
    """Hands requests to `commit`, which returns a result for each or raises and has done nothing at all.

    When a group fails, each of its requests is tried alone, so that it fails for its own faults only. A group
    takes no more once its requests weigh `most_together`, and at most `most_waiting` wait.
    """

    def __init__(
        self,
        commit: Callable[[Sequence[Request]], Sequence[Result]],
        *,
        name: str,
        weigh: Callable[[Request], int] = lambda _: 1,
        most_together: int = 64,
        most_waiting: int = 256,
    ) -> None:
        self._commit = commit
        self._weigh = weigh
        self._most_together = most_together
        self._most_waiting = most_waiting
        self._waiting: queue.SimpleQueue[tuple[Request, Future[Result]] | None] = queue.SimpleQueue()
        # A daemon: who waits for a lock that a hung process holds must not keep this one from ending.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    async def submit(self, request: Request, timeout_s: float) -> Result:
        """Return the result once it is committed; raises what `commit` raises.

        Raises `Overloaded` when too many wait, and `DeadlineExceeded` after `timeout_s`, when a request that
        a commit has begun with may still be committed; one that only waits is forgotten.
        """
        if self._waiting.qsize() >= self._most_waiting:
            raise Overloaded(
                f"{self._most_waiting} writes wait for the disk, the limit", retry_after_s=_RETRY_AFTER_S
            )
        if self._thread.ident is None:
            self._thread.start()
        future: Future[Result] = Future()
        self._waiting.put((request, future))
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            raise DeadlineExceeded(f"not on disk within {timeout_s:.3f} s; it may be yet") from None

    def close(self, patience_s: float = 5.0) -> bool:
        """End the thread after what waits; returns whether it has ended."""
        if self._thread.ident is None:
            return True
        self._waiting.put(None)
        self._thread.join(patience_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            group, weight = [first], self._weigh(first[0])
            while weight < self._most_together and (more := self._next()) is not None:
                group.append(more)
                weight += self._weigh(more[0])
            self._write([
                (request, future) for request, future in group if future.set_running_or_notify_cancel()
            ])  # fmt: skip

    def _next(self) -> tuple[Request, Future[Result]] | None:
        """Return what waits, if anything does; the end is left for later."""
        try:
            waiting = self._waiting.get_nowait()
        except queue.Empty:
            return None
        if waiting is None:
            self._waiting.put(None)
        return waiting

    def _write(self, group: Sequence[tuple[Request, Future[Result]]]) -> None:
        if not group:
            return
        try:
            results = self._commit([request for request, _ in group])
        except Exception as error:
            if len(group) == 1:
                group[0][1].set_exception(error)
                return
            for alone in group:
                self._write([alone])
        else:
            for (_, future), result in zip(group, results, strict=True):
                future.set_result(result)
