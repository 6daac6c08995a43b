"""One example for each thing that a plan weighs, with the reason it gives."""

from typing import Any

from shards.planner import Assigned, Churn, Limits, Mode, ModelFacts, Plan, ShardFacts, plan
from shards.release import ModelVersion


def shard(n: int, **more: object) -> ShardFacts:
    facts = {"shard_id": f"s{n}", "node": f"n{n}", "capacity_bytes": 100, **more}
    return ShardFacts(**facts)  # type: ignore[arg-type]


def model(name: str, size: int = 10, **more: object) -> ModelFacts:
    return ModelFacts(model=v(name), memory_bytes=size, **more)  # type: ignore[arg-type]


def v(name: str) -> ModelVersion:
    return ModelVersion(name, "1")


def planned(
    shards: list[ShardFacts],
    models: list[ModelFacts],
    previous: Assigned | None = None,
    load: dict[ModelVersion, float] | None = None,
    **limits: object,
) -> Plan:
    given = {"min_replicas": 1, **limits}
    return plan(0, shards, models, load or {}, previous or {}, Limits(**given))  # type: ignore[arg-type]


def test_a_bundle_for_the_gpu_goes_where_there_is_gpu_memory() -> None:
    shards = [shard(0, capacity_bytes=900), shard(1, gpu_capacity_bytes=50)]
    answer = planned(shards, [model("m", gpu_memory_bytes=40)])
    assert answer.assignments == {v("m"): ("s1",)}
    (unplaced,) = planned(shards, [model("m", gpu_memory_bytes=46)]).unplaced
    assert unplaced.reason == "it needs 46 bytes of GPU memory and the most room on a shard is 45"


def test_partitions_of_a_catalogue_avoid_each_other_although_one_release_pins_them() -> None:
    parts = [model(f"p{n}", group="items", releases=frozenset({"r"})) for n in range(4)]
    answer = planned([shard(n) for n in range(4)], parts)
    assert sorted(holders for (holders,) in answer.assignments.values()) == ["s0", "s1", "s2", "s3"]


def test_what_is_kept_for_a_rollback_makes_room() -> None:
    models = [model("live", 60), model("old", 60, optional=True)]
    answer = planned([shard(0)], models, {v("old"): ("s0",)})
    assert answer.assignments == {v("live"): ("s0",), v("old"): ()}
    assert {move.reason for move in answer.moves} == {
        "repair: 0 of 1 replicas are there",
        "optional: live@1 needs its room",
    }


def test_bundles_on_demand_share_room_beside_what_is_always_loaded() -> None:
    models = [model("fixed", 40), *(model(f"d{n}", 50, on_demand=True) for n in range(5))]
    answer = planned([shard(0)], models)
    assert all(holders == ("s0",) for holders in answer.assignments.values())
    (unplaced,) = planned([shard(0)], [*models, model("big", 51, on_demand=True)]).unplaced
    assert (unplaced.model, unplaced.reason) == (
        v("big"),
        "it needs 51 bytes and the most room on a shard is 50",
    )


def test_a_bundle_on_demand_has_one_replica_until_its_load_asks_for_more() -> None:
    shards, models = [shard(0), shard(1)], [model("d", on_demand=True)]
    limits: dict[str, Any] = {"min_replicas": 2, "load_per_replica": 10.0, "mode": Mode.PERIODIC}
    assert len(planned(shards, models, **limits).assignments[v("d")]) == 1
    grown = planned(shards, models, load={v("d"): 12.0}, **limits)
    assert len(grown.assignments[v("d")]) == 2
    assert "growth: 12.0 requests/s ask for 2 replicas" in {move.reason for move in grown.moves}


def test_a_load_that_wavers_moves_nothing() -> None:
    shards, models, held = [shard(0), shard(1)], [model("m")], {v("m"): ("s0", "s1")}
    limits: dict[str, Any] = {"load_per_replica": 10.0, "mode": Mode.PERIODIC}
    assert planned(shards, models, held, {v("m"): 9.0}, **limits).moves == ()
    (shrunk,) = planned(shards, models, held, {v("m"): 7.0}, **limits).moves
    assert shrunk.to_shard == ""


def test_a_drain_goes_as_far_as_the_budget_and_says_what_waits() -> None:
    shards, models = [shard(0, drained=True), shard(1)], [model(f"m{n}") for n in range(5)]
    held = {m.model: ("s0",) for m in models}
    answer = planned(shards, models, held, churn=Churn(moves=2))
    assert [(m.from_shard, m.to_shard, m.reason) for m in answer.moves] == [("s0", "s1", "drain of s0")] * 2
    assert answer.deferred == 3


def test_a_drained_shard_keeps_what_nothing_else_can_take() -> None:
    answer = planned([shard(0, drained=True), shard(1)], [model("m", 95)], {v("m"): ("s0",)})
    assert answer.assignments == {v("m"): ("s0",)}
    (unplaced,) = answer.unplaced
    assert unplaced.reason.startswith("s0 is drained but keeps it: it needs 95 bytes")


def test_a_new_shard_gets_its_share_only_in_a_periodic_plan_and_releases_stay_whole() -> None:
    shards = [shard(0), shard(1)]
    models = [model(f"m{n}", releases=frozenset({f"r{n // 2}"})) for n in range(8)]
    held = {m.model: ("s0",) for m in models}
    assert planned(shards, models, held).moves == ()
    answer = planned(shards, models, held, mode=Mode.PERIODIC)
    where = [answer.assignments[m.model] for m in models]
    assert sorted(where) == [("s0",)] * 4 + [("s1",)] * 4
    assert where[0::2] == where[1::2]
    assert answer.moves[0].reason == "balance: s0 has 2.00 times the mean memory, s1 0.00 times"


def test_a_new_node_takes_the_second_replica_off_a_shared_one() -> None:
    shards = [shard(0, node="a"), shard(1, node="a"), shard(2, node="b")]
    answer = planned(shards, [model("m")], {v("m"): ("s0", "s1")}, min_replicas=2, mode=Mode.PERIODIC)
    (move,) = answer.moves
    assert (move.to_shard, move.reason) == ("s2", "spread: node a holds 2 replicas")
