"""Equal searches in flight are computed once, and nobody is worse off for it."""

import asyncio
from dataclasses import replace

import pytest

from router.answer import Answer, Explanation
from router.budget import Deadline
from router.coalescing import Coalescing
from router.coverage import Gap, GapReason
from router.gate import GateDecision
from shards.candidates import EMPTY
from shards.errors import Unavailable
from shards.search_context import History, UserState
from tests.router.test_cascade import RELEASE

ANSWER = Answer(
    items=(),
    gate=GateDecision(open=True, reason="always", version="1"),
    release=RELEASE,
    gaps=(),
    timings=(),
    explanation=Explanation(channels={}, merged=EMPTY),
)
KNOWN = UserState(user_id="5", history=History(("cup",), ("click",), (1,)))
POOR = replace(ANSWER, gaps=(Gap(reason=GapReason.DEADLINE, detail="late"),))


class Computing:
    """Answers when it is told to, or was asked so often, and counts how often that is."""

    def __init__(self, *outcomes: Answer | Exception, go_when: int = 0) -> None:
        self.outcomes = list(outcomes)
        self.go_when = go_when
        self.asked = 0
        self.go = asyncio.Event()

    async def __call__(self) -> Answer:
        outcome = self.outcomes[self.asked]
        self.asked += 1
        if self.asked == self.go_when:
            self.go.set()
        await self.go.wait()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


def at(seconds: float) -> Deadline:
    return Deadline(seconds, lambda: 0.0)


async def started(
    coalescing: Coalescing, computing: Computing, *searches: tuple[str, float]
) -> list[asyncio.Task[Answer]]:
    """Begin searches, each (key, deadline), one after the other."""
    tasks = []
    for key, seconds in searches:
        tasks.append(asyncio.create_task(coalescing.answer(key, KNOWN, at(seconds), computing)))
        await asyncio.sleep(0)
    return tasks


def test_equal_searches_are_computed_once_and_later_ones_again() -> None:
    async def run() -> None:
        coalescing, computing = Coalescing(), Computing(ANSWER, ANSWER)
        tasks = await started(coalescing, computing, ("mug", 1.0), ("mug", 1.0), ("mug", 2.0))
        computing.go.set()
        assert await asyncio.gather(*tasks) == [ANSWER] * 3
        assert (computing.asked, coalescing.shared) == (1, 2)
        await coalescing.answer("mug", KNOWN, at(1.0), computing)
        assert computing.asked == 2

    asyncio.run(run())


def test_others_are_computed_beside_it() -> None:
    async def run() -> None:
        coalescing, computing = Coalescing(), Computing(ANSWER, ANSWER)
        tasks = await started(coalescing, computing, ("mug", 1.0), ("bag", 1.0))
        computing.go.set()
        await asyncio.gather(*tasks)
        assert (computing.asked, coalescing.shared) == (2, 0)

    asyncio.run(run())


def test_what_the_user_has_done_meanwhile_counts() -> None:
    async def run() -> None:
        coalescing, computing = Coalescing(), Computing(ANSWER, ANSWER)
        tasks = await started(coalescing, computing, ("mug", 1.0))
        clicked = replace(KNOWN, history=History(("cup", "mug"), ("click", "click"), (1, 2)))
        tasks.append(asyncio.create_task(coalescing.answer("mug", clicked, at(1.0), computing)))
        computing.go.set()
        await asyncio.gather(*tasks)
        assert computing.asked == 2

    asyncio.run(run())


def test_nobody_waits_for_one_who_has_more_time() -> None:
    async def run() -> None:
        coalescing, computing = Coalescing(), Computing(ANSWER, ANSWER)
        tasks = await started(coalescing, computing, ("mug", 2.0), ("mug", 1.0))
        assert computing.asked == 2
        computing.go.set()
        await asyncio.gather(*tasks)

    asyncio.run(run())


@pytest.mark.parametrize("first", [POOR, Unavailable("no shard")])
def test_what_is_missing_or_fails_is_not_shared(first: Answer | Exception) -> None:
    async def run() -> None:
        coalescing, computing = Coalescing(), Computing(first, ANSWER, ANSWER)
        tasks = await started(coalescing, computing, ("mug", 1.0), ("mug", 1.0), ("mug", 1.0))
        computing.go.set()
        told, *others = await asyncio.gather(*tasks, return_exceptions=True)
        assert told == first
        assert others == [ANSWER] * 2
        assert (computing.asked, coalescing.shared) == (3, 0)

    asyncio.run(run())


def test_nobody_waits_until_it_is_too_late_to_go_alone() -> None:
    async def run() -> None:
        coalescing, computing = Coalescing(), Computing(ANSWER, ANSWER, go_when=2)
        tasks = await started(coalescing, computing, ("mug", 0.01), ("mug", 0.02))
        assert await asyncio.gather(*tasks) == [ANSWER] * 2
        assert computing.asked == 2

    asyncio.run(run())


def test_a_caller_that_vanishes_leaves_the_others_their_answer() -> None:
    async def run() -> None:
        coalescing, computing = Coalescing(), Computing(ANSWER, ANSWER)
        first, second, third = await started(coalescing, computing, ("mug", 1.0), ("mug", 1.0), ("mug", 1.0))
        first.cancel()
        second.cancel()
        computing.go.set()
        assert await third == ANSWER
        assert computing.asked == 2
        assert not coalescing._computed

    asyncio.run(run())
