import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.retry_policy import Backoff, RetryBudget


@given(st.integers(0, 2000), st.integers())
def test_back_off_stays_under_its_exponential_and_its_cap(attempt: int, seed: int) -> None:
    backoff = Backoff(base_s=0.05, cap_s=2.0)
    delay_s = backoff.delay_s(attempt, random.Random(seed))
    assert 0 <= delay_s <= min(2.0, 0.05 * 2 ** min(attempt, 10))


def test_back_off_has_full_jitter() -> None:
    rng = random.Random(1)
    delays = [Backoff(base_s=1.0, cap_s=8.0).delay_s(3, rng) for _ in range(200)]
    assert min(delays) < 1 < 7 < max(delays)


def test_a_back_off_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="base_s <= cap_s"):
        Backoff(base_s=3.0, cap_s=2.0)


def test_the_budget_ends_with_failures_and_comes_back_with_successes() -> None:
    budget = RetryBudget(tokens=4, refill=0.5)
    assert [budget.failed() for _ in range(4)] == [True, False, False, False]
    for _ in range(8):
        budget.succeeded()
    assert budget.failed()


def test_the_budget_never_exceeds_its_tokens() -> None:
    budget = RetryBudget(tokens=4, refill=1.0)
    for _ in range(100):
        budget.succeeded()
    assert [budget.failed() for _ in range(2)] == [True, False]
