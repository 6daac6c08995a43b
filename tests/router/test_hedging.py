import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.call_history import CallHistory
from router.hedging import HedgeSettings, hang_after_s, pauses_s
from router.retry_budget import ShareBudget
from router.routing_table import Endpoint

SETTINGS = HedgeSettings()
A, B = Endpoint("s1", "h:1"), Endpoint("s2", "h:2")


@given(st.floats(0.1, 60.0))
def test_a_silent_replica_costs_a_share_of_the_time(remaining_s: float) -> None:
    assert 0 < hang_after_s(remaining_s) <= remaining_s / 3


@given(st.floats(1e-5, 10.0), st.floats(0.0, 60.0))
def test_no_hedge_comes_after_the_question_whether_the_replica_hangs(slow_s: float, left_s: float) -> None:
    pauses = pauses_s(slow_s, left_s, SETTINGS)
    assert all(pause > 0 for pause in pauses)
    assert sum(pauses) == pytest.approx(hang_after_s(left_s))


def test_a_hedge_waits_for_what_is_slow_for_calls_of_its_kind() -> None:
    assert pauses_s(0.02, 2.0, SETTINGS)[0] == pytest.approx(0.03)
    assert pauses_s(0.001, 2.0, SETTINGS)[0] == SETTINGS.least_s
    assert pauses_s(None, 2.0, SETTINGS) == (0.6,)
    assert pauses_s(5.0, 2.0, SETTINGS) == (0.6,)


def test_a_history_knows_each_replica_and_what_is_slow_for_all() -> None:
    history = CallHistory(decay_s=2.0)
    assert history.latency_s(A, 0.0) is None
    for n in range(300):
        history.answered(A, 0.01 if n % 10 else 0.05, n / 100)
        history.answered(B, 0.5, n / 100)
    assert history.latency_s(B, 3.0) == pytest.approx(0.5, rel=0.1)
    assert (history.latency_s(A, 3.0) or 0) < 0.06
    assert (history.slow_s or 0) > 0.3


def test_an_answer_that_is_waited_for_counts_as_soon_as_it_is_late() -> None:
    history = CallHistory(decay_s=2.0)
    history.answered(A, 0.01, 0.0)
    history.waiting(A, 0.005, 0.0)
    assert history.latency_s(A, 0.0) == 0.01
    history.waiting(A, 0.4, 0.0)
    assert history.latency_s(A, 0.0) == 0.4
    slow_s = history.slow_s
    history.given_up(A, 0.5, 0.0)
    assert history.latency_s(A, 0.0) == 0.5
    assert (history.slow_s or 0) > (slow_s or 0)


def test_who_is_given_up_again_and_again_is_tried_the_less_often() -> None:
    history = CallHistory(decay_s=2.0)
    for _ in range(50):
        history.answered(A, 0.01, 0.0)
    for expected_s in (0.04, 0.08, 0.16):
        history.given_up(A, 0.04, 1.0)
        assert history.latency_s(A, 1.0) == pytest.approx(expected_s)
    for n in range(20):
        history.given_up(A, 0.04, 1.0 + n / 1e6)
    assert (history.latency_s(A, 1.0) or 0) <= 0.04 * 2**7
    # An answer counts by how long ago the one before it was.
    history.answered(A, 0.01, 13.0)
    assert (history.latency_s(A, 13.0) or 0) < 0.05
    history.given_up(A, 0.04, 30.0)
    assert history.latency_s(A, 30.0) == pytest.approx(0.04)


def test_a_hedge_that_came_second_is_no_slow_replica() -> None:
    history = CallHistory(decay_s=2.0)
    history.answered(A, 0.01, 0.0)
    for _ in range(5):
        history.given_up(B, 0.002, 0.0)
    assert history.latency_s(B, 0.0) == 0.002


def test_a_history_forgets_replicas_that_are_gone_and_what_nobody_asks() -> None:
    history = CallHistory(decay_s=2.0)
    history.answered(A, 0.01, 5.0)
    history.answered(B, 0.01, 5.0)
    assert history.retain({A}, since_s=5.0)
    assert history.latency_s(B, 5.0) is None
    assert not history.retain({A}, since_s=6.0)


def test_further_attempts_are_a_share_of_the_calls_over_a_reserve() -> None:
    budget = ShareBudget(share=0.2, reserve=3.0)
    assert [budget.spend() for _ in range(5)] == [True, True, True, False, False]
    for _ in range(5):
        budget.earn()
    assert [budget.spend() for _ in range(2)] == [True, False]
    for _ in range(1000):
        budget.earn()
    assert sum(budget.spend() for _ in range(10)) == 3
