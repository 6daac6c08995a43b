from dataclasses import replace

import pytest

from shards.cluster_state import LoadSample
from shards.load_rates import model_rates, sampled, shard_rates, steadied
from tests.shards.controller_rig import version

MODEL = version("ranker")


def samples(*counts: int, incarnations: str = "") -> tuple[LoadSample, ...]:
    """Return samples five seconds apart."""
    lives = incarnations or "a" * len(counts)
    return tuple(
        LoadSample(at_ms=i * 5_000, incarnation=lives[i], requests={MODEL: count})
        for i, count in enumerate(counts)
    )


@pytest.mark.parametrize(
    ("told", "rate"),
    [
        (samples(100, 150, 200), 10.0),
        (samples(100, 150, 50, incarnations="aab"), 10.0),
        (samples(100, 50), 10.0),
        (samples(100, 100), 0.0),
        (samples(100), 0.0),
    ],
)
def test_a_rate_is_what_was_answered_since_whatever_the_counter_did(
    told: tuple[LoadSample, ...], rate: float
) -> None:
    assert shard_rates(told, told[-1].at_ms).get(MODEL, 0.0) == pytest.approx(rate)


def test_rates_of_shards_add_up_and_old_ones_do_not_count() -> None:
    told = samples(0, 50)
    assert model_rates({"s1": told, "s2": told}, 5_000) == {MODEL: pytest.approx(20.0)}
    assert model_rates({"s1": told}, 60_000) == {}


def test_samples_are_kept_apart_and_for_the_window_only() -> None:
    kept: tuple[LoadSample, ...] = ()
    for at_ms in range(0, 100_000, 500):
        kept = sampled(kept, LoadSample(at_ms=at_ms, incarnation="a", requests={}))
    assert len(kept) <= 12
    assert kept[0].at_ms >= 75_000
    assert sampled(kept, replace(kept[-1], at_ms=kept[-1].at_ms + 1)) is kept


def test_a_load_that_wavers_is_the_same_one() -> None:
    assert steadied({MODEL: 10.0}, {MODEL: 12.0}) == {MODEL: 10.0}
    assert steadied({MODEL: 10.0}, {MODEL: 14.0}) == {MODEL: 14.0}
    assert steadied({MODEL: 10.0}, {MODEL: 0.01}) == {}
