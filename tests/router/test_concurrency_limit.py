from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.concurrency_limit import Limit, LimitSettings, Window, step

SETTINGS = LimitSettings(floor=4, start=32, ceiling=256, patience_s=0.0, standing_s=0.0)


def window(**changed: Any) -> Window:
    return Window(**{"answered": 50, "took_s": 0.01, "overdue": 0, "peak": 200, "lag_s": 0.0} | changed)


def after(limit: Limit, times: int, **changed: Any) -> Limit:
    for _ in range(times):
        limit = step(limit, window(**changed), SETTINGS)
    return limit


def queueing(
    capacity_per_s: float,
    alone_s: float,
    *,
    offered: int,
    times: int = 300,
    settings: LimitSettings = SETTINGS,
) -> list[int]:
    """Return the limits over time before a server of such a capacity, with so many who want to be let in."""
    limit, seen = Limit(size=settings.start, usual_s=alone_s), []
    for _ in range(times):
        in_flight = min(limit.requests, offered)
        took_s = max(alone_s, in_flight / capacity_per_s)
        limit = step(limit, window(took_s=took_s, peak=in_flight), settings)
        seen.append(limit.requests)
    return seen


def test_it_grows_while_requests_take_as_long_as_usual() -> None:
    limit = Limit(size=32.0, usual_s=0.01)
    assert 32 < after(limit, 1).requests < 40
    assert after(limit, 200).requests == SETTINGS.ceiling


def test_what_is_not_used_does_not_grow_nor_shrink() -> None:
    limit = Limit(size=32.0, usual_s=0.01)
    for changed in ({}, {"took_s": 5.0}, {"overdue": 50}, {"lag_s": 1.0}):
        assert after(limit, 50, peak=15, **changed).size == 32


def test_it_finds_what_keeps_a_server_busy_without_a_queue_that_only_grows() -> None:
    last = queueing(capacity_per_s=1000.0, alone_s=0.01, offered=500)[-100:]
    # Ten keep it busy; what is more waits.
    assert min(last) >= 10
    assert max(last) <= 64


def test_a_queue_that_all_can_wait_for_is_let_in_and_no_longer_one() -> None:
    patient = replace(SETTINGS, patience_s=0.1)
    assert queueing(capacity_per_s=1000.0, alone_s=0.01, offered=90, settings=patient)[-1] >= 90
    last = queueing(capacity_per_s=1000.0, alone_s=0.01, offered=500, settings=patient)[-100:]
    assert min(last) >= 90
    assert max(last) <= 200


def test_what_passes_is_waited_for_and_what_stands_is_not() -> None:
    steady = replace(SETTINGS, standing_s=1.0, window_s=0.1)
    limit = Limit(size=100.0, usual_s=0.01)
    for strain in ({"took_s": 5.0}, {"overdue": 50}, {"lag_s": 1.0}):
        for _ in range(3):
            for _ in range(9):
                limit = step(limit, window(**strain), steady)
            assert limit.size >= 100
            limit = step(limit, window(), steady)
    for _ in range(20):
        limit = step(limit, window(lag_s=1.0), steady)
    assert limit.size < 50


def test_a_router_that_comes_late_to_everything_lets_fewer_in_soon() -> None:
    limit = Limit(size=256.0, usual_s=0.01)
    assert after(limit, 1, lag_s=0.1).requests <= 128
    assert after(limit, 8, lag_s=0.1).requests <= SETTINGS.floor * 2


def test_requests_that_find_no_time_or_no_room_lower_it() -> None:
    limit = Limit(size=100.0, usual_s=0.01)
    assert after(limit, 1, overdue=2).size >= 100
    assert after(limit, 1, overdue=50 // 9 + 5).size == pytest.approx(100 * 50 / 60)
    assert after(limit, 1, overdue=500).size == 50


def test_what_usually_is_falls_soon_and_rises_slowly_most_of_all_under_load() -> None:
    limit = Limit(size=100.0, usual_s=0.01)
    assert (after(limit, 30, took_s=0.001, peak=100).usual_s or 1) < 0.002
    assert 0.015 < (after(limit, 30, took_s=0.05, peak=10).usual_s or 0) < 0.03
    assert (after(limit, 30, took_s=0.05, peak=100).usual_s or 0) < 0.015


def test_without_a_request_nothing_is_known_and_the_first_says_what_is_usual() -> None:
    assert after(Limit(size=32.0), 5, answered=0) == Limit(size=32.0)
    assert after(Limit(size=32.0), 1, took_s=0.2).usual_s == 0.2


@given(
    st.lists(
        st.builds(
            Window,
            answered=st.integers(0, 1000),
            took_s=st.floats(0, 100),
            overdue=st.integers(0, 1000),
            peak=st.integers(0, 1000),
            lag_s=st.floats(0, 10),
        ),
        max_size=50,
    )
)
def test_it_stays_between_floor_and_ceiling(windows: list[Window]) -> None:
    limit = Limit(size=32.0)
    for each in windows:
        limit = step(limit, each, SETTINGS)
        assert SETTINGS.floor <= limit.requests <= SETTINGS.ceiling


def test_a_low_ceiling_lowers_floor_and_start() -> None:
    assert SETTINGS.below(2) == LimitSettings(floor=2, start=2, ceiling=2, patience_s=0.0, standing_s=0.0)


@pytest.mark.parametrize("wrong", [{"floor": 0}, {"start": 1}, {"tolerance": 0.5}, {"most_overdue": 2.0}])
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"floor|tolerance|most_overdue"):
        LimitSettings(**wrong)
