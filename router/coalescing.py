"""Equal searches in flight share one answer: the first is computed, the others wait for it.

Popular queries come many at a time, and a client that hedges or retries asks the same twice. Nothing is kept
once the answer is out, so no answer is ever older than the search that it answers took.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

from router.answer import Answer
from router.budget import Deadline
from shards.search_context import UserState

_PATIENCE = 0.5
"""Of a search's time, what it waits for the answer of another: the rest must do for its own."""


@dataclass(slots=True, kw_only=True)
class _Computed:
    """A search that is being computed, and those who wait for its answer; None has them go themselves."""

    user: UserState
    deadline: Deadline
    waiting: list[asyncio.Future[Answer | None]] = field(default_factory=list)


class Coalescing:
    """The searches that one router computes just now, by what makes two of them equal."""

    def __init__(self) -> None:
        self._computed: dict[Hashable, _Computed] = {}
        self.shared = 0
        """How many searches were answered with the answer of another."""

    async def answer(
        self, key: Hashable, user: UserState, deadline: Deadline, compute: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        """Return the complete answer to an equal search that is under way, or else what `compute` answers.

        A search that knows more of its `user` than the one under way, say a click just recorded, goes itself.
        Nobody waits for one who has more time, nor for longer than half of the time they have. An answer that
        lacks something may lack it for want of time, and counts for its own search alone; nor is a failure
        shared. Raises what `compute` raises.
        """
        first = self._computed.get(key)
        if first is None:
            return await self._compute(key, user, deadline, compute)
        if first.deadline.at_s <= deadline.at_s and first.user == user:
            answer = await _answer_of(first, _PATIENCE * deadline.remaining_s())
            if answer is not None:
                self.shared += 1
                return answer
        return await compute()

    async def _compute(
        self, key: Hashable, user: UserState, deadline: Deadline, compute: Callable[[], Awaitable[Answer]]
    ) -> Answer:
        computed = self._computed[key] = _Computed(user=user, deadline=deadline)
        complete: Answer | None = None
        try:
            answer = await compute()
            complete = None if answer.gaps else answer
            return answer
        finally:
            del self._computed[key]
            for future in computed.waiting:
                if not future.done():  # A caller that gave up has cancelled its own.
                    future.set_result(complete)


async def _answer_of(computed: _Computed, within_s: float) -> Answer | None:
    future: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
    computed.waiting.append(future)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            return await future
    return None
