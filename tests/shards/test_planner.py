from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.planner import Assigned, Limits, Mode, ModelFacts, Plan, ShardFacts, plan
from shards.release import ModelVersion

NOW_MS = 1_000_000

Cluster = tuple[list[ShardFacts], list[ModelFacts], dict[ModelVersion, tuple[str, ...]]]


def shard(n: int, *, node: str = "", capacity: int = 100, lost_since_ms: int | None = None) -> ShardFacts:
    return ShardFacts(
        shard_id=f"s{n}", node=node or f"n{n}", capacity_bytes=capacity, lost_since_ms=lost_since_ms
    )


def model(name: str, size: int = 10, *releases: str) -> ModelFacts:
    return ModelFacts(model=version(name), memory_bytes=size, releases=frozenset(releases))


def version(name: str) -> ModelVersion:
    return ModelVersion(name, "1")


def planned(
    shards: Sequence[ShardFacts],
    models: Sequence[ModelFacts],
    previous: Assigned | None = None,
    load: Mapping[ModelVersion, float] | None = None,
    **limits: object,
) -> Plan:
    return plan(NOW_MS, shards, models, load or {}, previous or {}, Limits(**limits))  # type: ignore[arg-type]


def test_replicas_go_to_the_shards_with_most_room() -> None:
    shards = [shard(0, capacity=50), shard(1, capacity=90), shard(2, capacity=80)]
    assert planned(shards, [model("a")]).assignments == {version("a"): ("s1", "s2")}


def test_stages_of_a_release_share_their_shards_and_releases_spread() -> None:
    models = [model(f"{r}-{stage}", 10, r) for r in ("x", "y") for stage in ("two-tower", "ranker")]
    assignments = planned([shard(n) for n in range(4)], models).assignments
    assert assignments[version("x-two-tower")] == assignments[version("x-ranker")]
    assert assignments[version("y-two-tower")] == assignments[version("y-ranker")]
    assert set(assignments[version("x-ranker")]).isdisjoint(assignments[version("y-ranker")])


def test_replicas_of_a_bundle_avoid_one_node() -> None:
    shards = [shard(0, node="a", capacity=900), shard(1, node="a", capacity=900), shard(2, node="b")]
    assert planned(shards, [model("m")]).assignments == {version("m"): ("s0", "s2")}


def test_a_lost_shard_keeps_its_place_until_its_grace_has_passed() -> None:
    previous = {version("m"): ("s0", "s1")}
    within = [shard(0), shard(1, lost_since_ms=NOW_MS - 60_000), shard(2)]
    assert planned(within, [model("m")], previous).moves == ()
    beyond = [shard(0), shard(1, lost_since_ms=NOW_MS - 60_001), shard(2)]
    moved = planned(beyond, [model("m")], previous)
    assert moved.assignments == {version("m"): ("s0", "s2")}
    (move,) = moved.moves
    assert (move.from_shard, move.to_shard, move.reason) == ("s1", "s2", "repair: s1 is gone")


def test_a_lost_shard_gains_nothing() -> None:
    answer = planned([shard(0), shard(1, lost_since_ms=NOW_MS)], [model("m")])
    assert answer.assignments == {version("m"): ("s0",)}
    (unplaced,) = answer.unplaced
    assert unplaced.missing == 1
    assert unplaced.reason == "of the shards that answer (1) none is left for it"


def test_a_bundle_too_big_is_named_with_the_room_there_is() -> None:
    answer = planned([shard(0), shard(1, capacity=200)], [model("m", 181)])
    assert answer.assignments == {version("m"): ()}
    (unplaced,) = answer.unplaced
    assert unplaced.missing == 2
    assert unplaced.reason == "it needs 181 bytes and the most room on a shard is 180"


def test_what_is_held_may_use_the_headroom_that_new_bundles_may_not() -> None:
    previous = {version("m"): ("s0", "s1")}
    assert planned([shard(0), shard(1)], [model("m", 95)], previous).moves == ()
    assert planned([shard(0), shard(1)], [model("m", 95)]).assignments == {version("m"): ()}


def test_memory_that_runs_short_costs_second_copies() -> None:
    previous = {version("a"): ("s0", "s1"), version("b"): ("s0",)}
    answer = planned([shard(0), shard(1)], [model("a", 60), model("b", 60)], previous)
    assert answer.assignments == {version("a"): ("s1",), version("b"): ("s0",)}
    assert [move.reason for move in answer.moves] == ["repair: s0 has too little memory for it"]


def test_a_bundle_of_no_release_goes() -> None:
    answer = planned([shard(0), shard(1)], [], {version("old"): ("s0", "s1")})
    assert answer.assignments == {}
    assert [(m.from_shard, m.reason) for m in answer.moves] == [
        ("s0", "no release uses it"),
        ("s1", "no release uses it"),
    ]


def test_replicas_beyond_the_most_leave_the_crowded_node() -> None:
    shards = [shard(0, node="a"), shard(1, node="b"), shard(2, node="b")]
    answer = planned(shards, [model("m")], {version("m"): ("s0", "s1", "s2")})
    assert answer.assignments == {version("m"): ("s0", "s2")}
    assert [m.reason for m in answer.moves] == ["no more than 2 replicas are needed"]


def test_load_asks_for_replicas_up_to_the_most() -> None:
    limits = Limits(min_replicas=1, max_replicas=3, load_per_replica=100)
    assert [limits.replicas(load) for load in (0, 100, 101, 900)] == [1, 1, 2, 3]
    answer = planned(
        [shard(n) for n in range(4)],
        [model("hot"), model("cold")],
        load={version("hot"): 250.0},
        min_replicas=1,
        max_replicas=3,
        load_per_replica=100,
        mode=Mode.PERIODIC,
    )
    assert {m.model: len(h) for m, h in answer.assignments.items()} == {"hot": 3, "cold": 1}


@pytest.mark.parametrize(
    "limits",
    [{"min_replicas": 0}, {"min_replicas": 3, "max_replicas": 2}, {"headroom": 1.0}, {"load_per_replica": 0}],
)
def test_limits_that_contradict_themselves_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        Limits(**limits)  # type: ignore[arg-type]


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    lost = st.sampled_from([None, None, None, NOW_MS - 1, NOW_MS - 90_000])
    shards = [
        shard(
            n,
            node=f"n{draw(st.integers(0, 3))}",
            capacity=draw(st.integers(0, 120)),
            lost_since_ms=draw(lost),
        )
        for n in range(draw(st.integers(0, 6)))
    ]
    releases = st.frozensets(st.sampled_from(["x", "y", "z"]), max_size=2)
    models = [
        ModelFacts(model=version(f"m{n}"), memory_bytes=draw(st.integers(0, 60)), releases=draw(releases))
        for n in range(draw(st.integers(0, 6)))
    ]
    holders = st.lists(st.sampled_from([f"s{n}" for n in range(8)]), unique=True, max_size=4).map(tuple)
    previous = {version(f"m{n}"): draw(holders) for n in range(draw(st.integers(0, 8)))}
    return shards, models, previous


limits_drawn = st.builds(
    lambda low, more, headroom: Limits(min_replicas=low, max_replicas=low + more, headroom=headroom),
    st.integers(1, 3),
    st.integers(0, 2),
    st.sampled_from([0.0, 0.1, 0.5]),
)


@given(clusters(), limits_drawn)
def test_every_bundle_is_covered_or_named_as_unplaced(cluster: Cluster, limits: Limits) -> None:
    shards, models, previous = cluster
    answer = plan(NOW_MS, shards, models, {}, previous, limits)
    missing = {unplaced.model: unplaced.missing for unplaced in answer.unplaced}
    assert answer.assignments.keys() == {m.model for m in models}
    for held, holders in answer.assignments.items():
        assert len(holders) + missing.get(held, 0) >= limits.min_replicas
        assert len(holders) <= limits.max_replicas
        assert len(set(holders)) == len(holders)


@given(clusters(), limits_drawn)
def test_no_shard_is_given_more_than_it_can_hold(cluster: Cluster, limits: Limits) -> None:
    shards, models, previous = cluster
    answer = plan(NOW_MS, shards, models, {}, previous, limits)
    used: Counter[str] = Counter()
    for m in models:
        used.update(dict.fromkeys(answer.assignments[m.model], m.memory_bytes))
    gained = {move.to_shard for move in answer.moves}
    capacity = {s.shard_id: s.capacity_bytes for s in shards}
    assert used.keys() <= capacity.keys()
    for shard_id, used_bytes in used.items():
        share = 1 - limits.headroom if shard_id in gained and used_bytes else 1
        assert used_bytes <= capacity[shard_id] * share + 1e-9 or not used_bytes


@given(clusters(), limits_drawn)
def test_a_plan_carried_out_asks_for_nothing_more(cluster: Cluster, limits: Limits) -> None:
    shards, models, previous = cluster
    first = plan(NOW_MS, shards, models, {}, previous, limits)
    second = plan(NOW_MS, shards, models, {}, first.assignments, limits)
    assert second.assignments == first.assignments
    assert second.moves == ()


@given(clusters(), limits_drawn)
def test_what_could_stay_stays(cluster: Cluster, limits: Limits) -> None:
    shards, models, previous = cluster
    roomy = [replace(s, capacity_bytes=10_000, lost_since_ms=None) for s in shards]
    answer = plan(NOW_MS, roomy, models, {}, previous, limits)
    ids = {s.shard_id for s in roomy}
    for held, holders in answer.assignments.items():
        could_stay = ids & set(previous.get(held, ()))
        assert len(could_stay & set(holders)) == min(len(could_stay), limits.max_replicas)


@given(clusters(), limits_drawn, st.randoms())
def test_the_order_of_the_facts_does_not_matter(cluster: Cluster, limits: Limits, random: Random) -> None:
    shards, models, previous = cluster
    answer = plan(NOW_MS, shards, models, {}, previous, limits)
    shards, models = random.sample(shards, len(shards)), random.sample(models, len(models))
    reordered = dict(random.sample(list(previous.items()), len(previous)))
    assert plan(NOW_MS, shards, models, {}, reordered, limits) == answer
