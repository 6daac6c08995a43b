"""A thread that works in the background leaves time to those who serve."""

import pytest

from shards.pace import Pace


class Thread:
    """Computes when told to, and remembers how it rested."""

    def __init__(self) -> None:
        self.computed_s = 0.0
        self.rests: list[float] = []

    def clock(self) -> float:
        return self.computed_s


def test_rests_many_times_as_long_as_it_computed_but_never_long() -> None:
    thread = Thread()
    pace = Pace(lambda: True, thread.clock, thread.rests.append)
    for computed_s in (0.001, 0.002, 5.0):
        thread.computed_s += computed_s
        pace.rest()
    assert thread.rests == [pytest.approx(0.05), pytest.approx(0.1), pytest.approx(0.15)]


def test_does_not_rest_for_nothing() -> None:
    thread = Thread()
    pace = Pace(lambda: True, thread.clock, thread.rests.append)
    pace.rest()
    assert not thread.rests


def test_goes_on_at_once_while_nobody_else_has_work_and_owes_no_rest_for_it_later() -> None:
    thread, wanted = Thread(), [False]
    pace = Pace(lambda: wanted[0], thread.clock, thread.rests.append)
    thread.computed_s += 1.0
    pace.rest()
    wanted[0] = True
    thread.computed_s += 0.001
    pace.rest()
    assert thread.rests == [pytest.approx(0.05)]
