import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.backoff import Backoff


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
