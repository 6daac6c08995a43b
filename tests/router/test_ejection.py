import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.ejection import EjectionLimits, Record, answered, failed

LIMITS = EjectionLimits()


def after(outcomes: str, *, now: float = 0.0, step_s: float = 0.01) -> tuple[Record | None, float]:
    """Return the record after answers (".") and failures ("x"), one after the other."""
    record: Record | None = None
    for outcome in outcomes:
        now += step_s
        if outcome == "x":
            record = failed(record, now, LIMITS)
        elif record is not None:
            record = answered(record, now, LIMITS)
    return record, now


def ejected(outcomes: str, **timing: float) -> bool:
    record, now = after(outcomes, **timing)
    return record is not None and record.until_s > now


def test_failures_in_a_row_eject() -> None:
    assert not ejected("xxx")
    assert ejected("xxxx")
    assert not ejected("xxx.xxx" + "." * 20)


def test_a_share_of_failures_ejects_once_there_were_enough_calls() -> None:
    assert not ejected("x.x.x.x")
    assert ejected("x.x.x.x.x")
    assert not ejected("x....." * 30)


def test_failures_long_ago_do_not_count() -> None:
    assert not ejected("x..x..x..x..", step_s=20.0)


def test_each_ejection_is_twice_as_long_up_to_a_maximum() -> None:
    record, now = after("xxxx")
    lengths = []
    for _ in range(8):
        assert record is not None
        lengths.append(round(record.until_s - now, 6))
        now = record.until_s
        record = failed(record, now, LIMITS)
    assert lengths == [1, 2, 4, 8, 16, 30, 30, 30]


def test_what_was_on_its_way_when_a_replica_was_ejected_counts_no_more() -> None:
    record, now = after("xxxx")
    assert record is not None
    assert failed(record, now + 0.5, LIMITS).until_s == record.until_s
    still = answered(record, now + 0.5, LIMITS)
    assert still is not None
    assert still.until_s == record.until_s


def test_a_replica_that_stays_well_is_forgiven() -> None:
    record, _ = after("xxxx")
    assert record is not None
    back = answered(record, record.until_s + 1.0, LIMITS)
    assert back is not None
    assert back.ejections == 1
    assert answered(back, record.until_s + LIMITS.first_s + LIMITS.window_s, LIMITS) is None


@given(st.text(alphabet="x.", max_size=200), st.floats(0.001, 10.0))
def test_an_ejection_always_ends(outcomes: str, step_s: float) -> None:
    record, now = after(outcomes, step_s=step_s)
    assert record is None or record.until_s <= now + LIMITS.longest_s


def test_limits_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="consecutive"):
        EjectionLimits(consecutive=0)
    with pytest.raises(ValueError, match="first_s"):
        EjectionLimits(first_s=9.0, longest_s=1.0)
