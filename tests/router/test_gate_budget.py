"""The budget keeps the trigger rate on target whatever the scores are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.gate_budget import GAIN, BudgetState, GateBudget, closed_share, observed, started, target_at
from shards.release import GateRules

shares = st.floats(0.0, 1.0)
scores = st.lists(shares, min_size=1, max_size=20)
"""Few values, so that most of a run are ties."""


def rate_of(quantiles: list[float], target: float, times: int) -> float:
    """Return the share of searches that open the gate, over the values again and again."""
    state, opened = started(target), 0
    for n in range(times):
        opens = quantiles[n % len(quantiles)] >= closed_share(state, target=target, target_rate=target)
        opened += opens
        state = observed(state, opened=opens, target=target)
    return opened / times


@given(scores, shares)
def test_the_rate_converges_on_the_target_for_any_scores_and_ties(
    quantiles: list[float], target: float
) -> None:
    times = 2000
    # What the theorem of Gibbs and Candès promises, and a step more for the rounding of floats.
    assert abs(rate_of(quantiles, target, times) - target) <= (1 + 3 * GAIN) / (GAIN * times)


@given(st.lists(shares, min_size=200, max_size=400), shares)
def test_the_threshold_never_runs_away(quantiles: list[float], target: float) -> None:
    state = started(target)
    for quantile in quantiles:
        state = observed(state, opened=quantile >= state.threshold, target=target)
        assert -GAIN - 1e-9 <= state.threshold <= 1 + GAIN + 1e-9


@pytest.mark.parametrize("opened", [True, False])
def test_rules_that_decide_everything_leave_a_threshold_that_comes_back(opened: bool) -> None:
    state = started(0.5)
    for _ in range(10_000):
        state = observed(state, opened=opened, target=0.5)
    assert abs(state.threshold) <= 1 + GAIN
    steps = 0
    while not 0.0 < state.threshold < 1.0:
        state = observed(state, opened=not opened, target=0.5)
        steps += 1
    assert steps <= 210


@given(shares, shares, shares)
def test_the_target_only_falls_with_load_and_stays_within_its_ends(
    load: float, target_rate: float, least_rate: float
) -> None:
    target = target_at(load, target_rate=target_rate, least_rate=least_rate)
    assert min(least_rate, target_rate) - 1e-12 <= target <= target_rate + 1e-12
    busier = target_at(min(1.0, load + 0.1), target_rate=target_rate, least_rate=least_rate)
    assert busier <= target + 1e-12


@pytest.mark.parametrize(("load", "target"), [(0.0, 0.6), (0.5, 0.6), (0.75, 0.4), (1.0, 0.2), (3.0, 0.2)])
def test_from_half_load_on_the_target_falls(load: float, target: float) -> None:
    assert target_at(load, target_rate=0.6, least_rate=0.2) == pytest.approx(target)


def test_a_lower_target_closes_the_gate_at_once_and_not_only_after_a_while() -> None:
    state = BudgetState(threshold=0.4)
    assert closed_share(state, target=0.6, target_rate=0.6) == 0.4
    assert closed_share(state, target=0.1, target_rate=0.6) == pytest.approx(0.9)


def test_the_holder_follows_the_load_and_its_own_decisions() -> None:
    load = [0.0]
    budget = GateBudget(GateRules(target_rate=0.5, least_rate=0.1), lambda: load[0])
    opened = []
    for n in range(4000):
        load[0] = 0.0 if n < 2000 else 1.0
        opens = (n * 7919 % 1000) / 1000 >= budget.closed_share
        budget.observe(opened=opens)
        opened.append(opens)
    assert sum(opened[:2000]) / 2000 == pytest.approx(0.5, abs=0.03)
    assert sum(opened[2000:]) / 2000 == pytest.approx(0.1, abs=0.03)


def test_what_is_not_a_number_never_passes() -> None:
    budget = GateBudget(GateRules(target_rate=1.0), lambda: 0.0)
    assert not math.nan >= budget.closed_share
