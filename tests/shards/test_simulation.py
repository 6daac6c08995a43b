import pytest

from shards.planner import Churn, Limits, ModelFacts, ShardFacts
from shards.release import ModelVersion
from shards.simulation import Scenario, recorded_load, simulate, zipf_load

MODELS = [ModelVersion(f"m{n}", "1") for n in range(40)]


def scenario(*, shards: int = 4, limits: Limits | None = None, **more: object) -> Scenario:
    return Scenario(
        shards=tuple(ShardFacts(shard_id=f"s{n}", node=f"n{n}", capacity_bytes=1_000) for n in range(shards)),
        models=tuple(ModelFacts(model=model, memory_bytes=20) for model in MODELS),
        limits=limits or Limits(),
        **more,  # type: ignore[arg-type]
    )


def zipf(**more: float) -> list[dict[ModelVersion, float]]:
    options = {"rounds": 6, "rate": 100.0, "exponent": 1.1, "drift": 0.2, "seed": 3, **more}
    return [dict(rates) for rates in zipf_load(MODELS, **options)]  # type: ignore[arg-type]


def test_a_generated_load_keeps_its_rate_and_repeats_with_its_seed() -> None:
    rounds = zipf()
    assert [sum(rates.values()) for rates in rounds] == pytest.approx([100.0] * 6)
    assert rounds == zipf()
    assert rounds != zipf(seed=4)
    assert rounds[0] != rounds[-1]


def test_popularity_that_does_not_drift_stays() -> None:
    rounds = zipf(drift=0.0)
    assert rounds[0] == rounds[-1]
    assert max(rounds[0].values()) / min(rounds[0].values()) == pytest.approx(40**1.1)


def test_the_planner_evens_out_a_skewed_placement_and_then_rests() -> None:
    skewed = dict.fromkeys(MODELS, ("s0", "s1"))
    rounds = list(simulate(scenario(placement=skewed), zipf(drift=0.0)))
    assert rounds[0].load_max == pytest.approx(50.0)
    assert rounds[0].moves > 0
    assert rounds[-1].load_max < 1.25 * rounds[-1].load_mean
    assert rounds[-1].memory_max < 1.25 * rounds[-1].memory_mean
    assert rounds[-1].moves == 0


def test_a_budget_spreads_the_moves_over_rounds() -> None:
    skewed = dict.fromkeys(MODELS, ("s0", "s1"))
    limits = Limits(churn=Churn(moves=4))
    rounds = list(simulate(scenario(placement=skewed, limits=limits), zipf(drift=0.0)))
    assert [figures.moves for figures in rounds[:3]] == [4, 4, 4]
    assert rounds[0].deferred > rounds[2].deferred > 0


def test_requests_for_a_model_without_a_replica_are_unanswered() -> None:
    held = dict.fromkeys(MODELS[1:], ("s0", "s1"))
    first, second = simulate(scenario(placement=held), [{MODELS[0]: 2.0}] * 2)
    assert first.unanswered == first.requests == 120.0
    assert second.unanswered == 0


def test_a_recorded_load_becomes_rounds_with_gaps() -> None:
    a, b = MODELS[:2]
    rows = [(100.0, a, 30.0), (119.0, a, 30.0), (130.0, b, 6.0), (300.0, b, 12.0)]
    assert list(recorded_load(rows, round_s=60.0)) == [{a: 1.0}, {b: 0.1}, {}, {}, {b: 0.2}]


def test_a_simulation_without_shards_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one shard"):
        scenario(shards=0)
