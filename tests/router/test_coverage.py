import pytest

from router.coverage import Gap, GapReason, nothing_to_return, reason_of
from shards.errors import (
    DeadlineExceeded,
    FieldViolation,
    HeadraceError,
    InvalidInput,
    NoRoomYet,
    NotFound,
    NotOwner,
    Overloaded,
    Unavailable,
)
from shards.release import ModelVersion, Stage


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotFound("model", "m@1"), GapReason.NO_REPLICA),
        (NotOwner("m@1"), GapReason.NO_REPLICA),
        (Unavailable("gone"), GapReason.UNAVAILABLE),
        (DeadlineExceeded("late"), GapReason.DEADLINE),
        (Overloaded("busy", retry_after_s=1), GapReason.UNAVAILABLE),
        (HeadraceError("internal"), GapReason.FAILED),
    ],
)
def test_every_error_has_a_reason(error: HeadraceError, reason: GapReason) -> None:
    assert reason_of(error) is reason


def gap(channel: str, reason: GapReason) -> Gap:
    return Gap(
        stage=Stage.RETRIEVAL,
        channel=channel,
        model=ModelVersion("m", "1"),
        reason=reason,
        detail="because",
    )


def test_too_late_everywhere_is_a_deadline() -> None:
    gaps = [gap("a", GapReason.DEADLINE), gap("b", GapReason.SKIPPED)]
    error = nothing_to_return(gaps, [DeadlineExceeded("x"), DeadlineExceeded("y")])
    assert isinstance(error, DeadlineExceeded)
    assert "a: because; b: because" in str(error)


def test_anything_unreachable_is_unavailable() -> None:
    gaps = [gap("a", GapReason.DEADLINE), gap("b", GapReason.UNAVAILABLE)]
    assert isinstance(nothing_to_return(gaps, [DeadlineExceeded("x"), Unavailable("y")]), Unavailable)


def test_too_little_room_everywhere_says_when_to_come_back() -> None:
    gaps = [gap("a", GapReason.UNAVAILABLE), gap("b", GapReason.UNAVAILABLE)]
    waits = [NoRoomYet("x", retry_after_s=7), Overloaded("y", retry_after_s=3)]
    error = nothing_to_return(gaps, waits)
    assert isinstance(error, Overloaded)
    assert error.retry_after_s == 3
    assert isinstance(nothing_to_return(gaps, [waits[0], Unavailable("z")]), Unavailable)


def test_a_callers_mistake_stays_one() -> None:
    mistake = InvalidInput(FieldViolation("filter.clauses[0].attribute", "is unknown"))
    gaps = [gap("a", GapReason.UNAVAILABLE), gap("b", GapReason.FAILED)]
    assert nothing_to_return(gaps, [Unavailable("x"), mistake]) is mistake
