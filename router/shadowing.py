"""Shadow searches: after an answer was sent the shadow answers too, and how the two compare is reported."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from router.admission import Admission
from router.answer import Answer
from router.shadow_reporter import ShadowReporter
from shards.errors import HeadraceError
from shards.shadow import Report

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowSearch:
    """A search that was answered and shall be answered in another way: `run` does that.

    `answered` is told that answer and its seconds, `failed` that there is none; both return what to report.
    """

    name: str
    run: Callable[[], Awaitable[Answer]]
    answered: Callable[[Answer, float], Report]
    failed: Callable[[], Report]


class Shadowing:
    """Runs shadow searches while its `async with` block does, never more than `most` at once.

    Searches that people wait for come first: a shadow search is dropped while the router is busy, and what
    runs when the block ends is given up. Neither counts as the shadow's failure.
    """

    def __init__(self, reporter: ShadowReporter, admission: Admission, *, most: int) -> None:
        self._reporter = reporter
        self._admission = admission
        self._most = most
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._group = await asyncio.TaskGroup().__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._most = 0
        for task in self._tasks:
            task.cancel()
        await self._group.__aexit__(None, None, None)

    def offer(self, search: ShadowSearch) -> None:
        """Run the search, or drop and count it; returns at once."""
        if len(self._tasks) >= self._most or self._admission.busy:
            self._reporter.dropped()
            return
        task = self._group.create_task(self._run(search))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, search: ShadowSearch) -> None:
        started_s = time.monotonic()
        try:
            answer = await search.run()
        except HeadraceError as error:
            log.info("%s does not answer: %s", search.name, error)
            self._reporter.add(search.failed())
        except Exception:
            # A fault of a release that nobody relies on yet must not end the router.
            log.exception("%s failed", search.name)
            self._reporter.add(search.failed())
        else:
            self._reporter.add(search.answered(answer, time.monotonic() - started_s))
