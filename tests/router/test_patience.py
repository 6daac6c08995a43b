"""A model that loads is waited for within the search's time; whatever else is late is not."""

import asyncio

import pytest

from router.budget import RESERVE_S, Deadline
from router.patience import ask_patiently
from services.codec import StageAnswer
from shards.candidates import EMPTY
from shards.errors import DeadlineExceeded, FailedModel, HeadraceError, NoRoomYet, Overloaded, StillLoading
from shards.release import ModelVersion

BUDGET_S, LEFT_S = 0.3, 5.0
ANSWER = StageAnswer(shard_id="s1", model=ModelVersion("m", "1"), candidates=EMPTY)


def asked(first: HeadraceError | None, left_s: float = LEFT_S) -> tuple[list[float], object]:
    """Return the times of the calls, and what came of them, when the first one fails so."""
    times: list[float] = []

    async def ask(timeout_s: float) -> StageAnswer:
        times.append(timeout_s)
        if first is not None and len(times) == 1:
            raise first
        return ANSWER

    try:
        outcome: object = asyncio.run(ask_patiently(ask, BUDGET_S, Deadline.after(left_s, lambda: 0.0)))
    except HeadraceError as error:
        outcome = error
    return times, outcome


@pytest.mark.parametrize("cold", [StillLoading("loads"), NoRoomYet("tight", retry_after_s=4.0)])
def test_what_will_answer_gets_the_time_of_the_search(cold: HeadraceError) -> None:
    assert asked(cold) == ([BUDGET_S, LEFT_S - RESERVE_S], ANSWER)


@pytest.mark.parametrize(
    "error",
    [
        DeadlineExceeded("hangs"),
        FailedModel("is corrupt"),
        Overloaded("busy", retry_after_s=0.1),
        NoRoomYet("tight", retry_after_s=6.0),
    ],
)
def test_what_will_not_is_asked_once(error: HeadraceError) -> None:
    assert asked(error) == ([BUDGET_S], error)


def test_an_answer_in_time_is_asked_for_once() -> None:
    assert asked(None) == ([BUDGET_S], ANSWER)


def test_the_error_stays_when_no_time_is_left() -> None:
    error = StillLoading("loads")
    assert asked(error, left_s=RESERVE_S) == ([BUDGET_S], error)
