import random

import pytest

from shards.streaming_quantile import updated


@pytest.mark.parametrize(("quantile", "expected"), [(0.5, 0.693), (0.95, 2.996)])
def test_it_finds_the_quantile_of_a_stream_and_stays_there(quantile: float, expected: float) -> None:
    rng = random.Random(1)
    estimate: float | None = None
    seen = []
    for n in range(20_000):
        estimate = updated(estimate, rng.expovariate(1.0), quantile=quantile, gain=0.02)
        if n > 5_000:
            seen.append(estimate)
    assert sum(seen) / len(seen) == pytest.approx(expected, rel=0.1)


def test_the_first_sample_is_taken_as_it_is_and_none_leads_to_nought() -> None:
    assert updated(None, 3.0, quantile=0.95) == 3.0
    assert updated(None, 0.0, quantile=0.95) > 0
    assert updated(1e-6, 0.0, quantile=0.95) > 0


def test_it_follows_a_change_of_scale_within_a_few_hundred_samples() -> None:
    estimate = 1.0
    for _ in range(500):
        estimate = updated(estimate, 0.01, quantile=0.95)
    assert estimate < 0.02
    for _ in range(50):
        estimate = updated(estimate, 1.0, quantile=0.95)
    assert estimate > 0.9
