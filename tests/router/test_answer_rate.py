from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.answer_rate import LimitSettings, Rate, Window, places, step

SETTINGS = LimitSettings(floor=4, ceiling=256, share=0.5)


def after(rate: Rate, times: int, **changed: Any) -> Rate:
    for _ in range(times):
        rate = step(rate, Window(**{"seconds": 0.1, "answered": 10, "peak": 50} | changed), SETTINGS)
    return rate


def test_as_many_may_wait_as_are_answered_in_a_share_of_the_time() -> None:
    rate = after(Rate(), 1)
    assert rate.per_s == 100
    assert places(rate, 1.0, SETTINGS) == 50
    assert places(rate, 4.0, SETTINGS) == 200


def test_the_floor_is_let_in_whatever_the_rate_and_nobody_beyond_the_ceiling() -> None:
    assert places(Rate(per_s=0.0), 1.0, SETTINGS) == 4
    assert places(Rate(per_s=1e9), 1.0, SETTINGS) == 256
    assert places(Rate(), 1.0, SETTINGS) == 256


def test_few_in_flight_tell_how_many_came_not_what_can_be_done() -> None:
    assert after(Rate(per_s=100.0), 50, answered=1, peak=3).per_s == 100
    assert after(Rate(), 50, answered=1, peak=3).per_s is None


def test_what_was_long_ago_is_forgotten() -> None:
    assert after(Rate(per_s=100.0), 101, answered=1, peak=3).per_s is None
    assert after(after(Rate(per_s=100.0), 60, peak=3), 1).quiet_s == 0


def test_more_is_believed_soon_and_less_slowly() -> None:
    assert (after(Rate(per_s=100.0), 5, answered=20).per_s or 0) > 175
    assert (after(Rate(per_s=100.0), 5, answered=0).per_s or 0) > 75
    assert (after(Rate(per_s=100.0), 60, answered=2).per_s or 0) < 30


def test_the_length_of_a_window_counts() -> None:
    one = after(Rate(per_s=100.0), 1, seconds=1.0, answered=10).per_s
    assert one == pytest.approx(after(Rate(per_s=100.0), 10, answered=1).per_s)


@pytest.mark.parametrize("offered_per_s", [120, 300, 3_000])
def test_under_any_load_the_server_is_kept_busy_and_nobody_waits_too_long(offered_per_s: int) -> None:
    capacity_per_s, seconds, time_s = 100, 0.1, 1.0
    rate, queue, answered, longest_s = Rate(), 0.0, 0.0, 0.0
    for number in range(300):
        room = max(0.0, places(rate, time_s, SETTINGS) - queue)
        queue += min(offered_per_s * seconds, room)
        peak, done = queue, min(queue, capacity_per_s * seconds)
        queue -= done
        if number >= 100:
            answered, longest_s = answered + done, max(longest_s, peak / capacity_per_s)
        rate = step(rate, Window(seconds=seconds, answered=int(done), peak=int(peak)), SETTINGS)
    assert answered / (200 * seconds) >= 0.99 * capacity_per_s
    assert longest_s <= SETTINGS.share * time_s + seconds


def test_a_server_that_answers_nobody_for_a_while_is_believed_again_at_once() -> None:
    stalled = after(Rate(per_s=100.0), 20, answered=0)
    assert places(stalled, 1.0, SETTINGS) < 25
    assert places(after(stalled, 5), 1.0, SETTINGS) > 40


@given(
    st.lists(
        st.builds(
            Window, seconds=st.floats(0.001, 100), answered=st.integers(0, 1000), peak=st.integers(0, 1000)
        ),
        max_size=50,
    ),
    st.floats(0, 100),
)
def test_it_stays_between_floor_and_ceiling(windows: list[Window], time_s: float) -> None:
    rate = Rate()
    for each in windows:
        rate = step(rate, each, SETTINGS)
        assert SETTINGS.floor <= places(rate, time_s, SETTINGS) <= SETTINGS.ceiling


def test_a_low_ceiling_lowers_the_floor() -> None:
    assert SETTINGS.below(2) == LimitSettings(floor=2, ceiling=2, share=0.5)


@pytest.mark.parametrize("wrong", [{"floor": 0}, {"ceiling": 1}, {"share": 0.0}, {"fall_s": 0.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"floor|share|fall_s"):
        LimitSettings(**wrong)
