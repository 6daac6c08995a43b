from hypothesis import assume, given
from hypothesis import strategies as st

from router.budget import RESERVE_S, Deadline, allow


def test_a_stage_with_time_gets_its_budget_and_all_candidates() -> None:
    allowance = allow(remaining_s=1.0, budget_s=0.2, wanted=500, least=10)
    assert allowance is not None
    assert (allowance.timeout_s, allowance.candidates) == (0.2, 500)


def test_a_stage_never_gets_more_than_what_remains() -> None:
    allowance = allow(remaining_s=0.15, budget_s=0.2, wanted=500, least=10)
    assert allowance is not None
    assert allowance.timeout_s == 0.15 - RESERVE_S
    assert allowance.candidates == 500


def test_candidates_halve_as_the_time_does() -> None:
    seen = [
        allow(remaining_s=budget_s + RESERVE_S, budget_s=0.2, wanted=400, least=10)
        for budget_s in (0.1, 0.09, 0.05, 0.04, 0.01, 0.003)
    ]
    assert [a.candidates if a else None for a in seen] == [400, 200, 200, 100, 25, 10]


def test_without_time_nothing_is_asked() -> None:
    assert allow(remaining_s=RESERVE_S, budget_s=0.2, wanted=9, least=1) is None
    assert allow(remaining_s=-3.0, budget_s=0.2, wanted=9, least=1) is None


def test_the_smallest_budget_is_still_asked() -> None:
    allowance = allow(remaining_s=1.0, budget_s=0.001, wanted=9, least=1)
    assert allowance is not None
    assert allowance.candidates == 9


@given(
    remaining_s=st.floats(-1, 2),
    budget_s=st.floats(0.001, 1),
    wanted=st.integers(1, 10_000),
    least=st.integers(1, 500),
)
def test_an_allowance_stays_within_its_limits(
    remaining_s: float, budget_s: float, wanted: int, least: int
) -> None:
    allowance = allow(remaining_s=remaining_s, budget_s=budget_s, wanted=wanted, least=least)
    assume(allowance is not None)
    assert allowance is not None
    assert 0 < allowance.timeout_s <= min(budget_s, remaining_s)
    assert min(least, wanted) <= allowance.candidates <= wanted


def test_a_deadline_counts_down() -> None:
    now = 10.0
    deadline = Deadline.after(2.0, clock=lambda: now)
    now = 11.5
    assert deadline.remaining_s() == 0.5
    now = 12.5
    assert deadline.remaining_s() == -0.5
