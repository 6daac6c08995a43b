from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shards.cluster_events import (
    Action,
    CommitPlacement,
    FinishOperation,
    GenerationHeard,
    LoadDone,
    LoadFailed,
    LoadModel,
    PlacementCommitted,
    ShardSeen,
    ShardSilent,
    StartShard,
    Tick,
    UnloadDone,
    UnloadModel,
)
from shards.cluster_state import ControllerSettings
from shards.controller import step
from shards.intent import OperationState
from shards.planner import Limits
from shards.replica import ReplicaState
from shards.shard_view import ShardState
from tests.shards.controller_rig import Rig, only, ready, release, version


def test_every_shard_is_started_once() -> None:
    rig = Rig("s1", "s2")
    started = only(StartShard, rig.feed(Tick()))
    assert started == [StartShard(shard_id="s1", restart=False), StartShard(shard_id="s2", restart=False)]
    assert only(StartShard, rig.feed(Tick(), after_ms=1000)) == []


def test_a_deploy_waits_for_the_shards_loads_one_by_one_and_goes_live_at_once() -> None:
    rig = Rig("s1", "s2")
    rig.see("s1")
    rig.deploy(release("7"))
    assert only(LoadModel, rig.log) == []
    assert rig.operation().detail == "waiting for s2"
    loads = only(LoadModel, rig.see("s2"))
    assert sorted(load.shard_id for load in loads) == ["s1", "s2"]
    assert rig.state.placement.releases == {}
    rig.work(loads)
    assert rig.state.placement.releases == {"web": release("7")}
    assert rig.holders("towers") == rig.holders("ranker") == ("s1", "s2")
    assert (rig.operation().state, rig.operation().steps_done) == (OperationState.SUCCEEDED, 4)
    assert rig.operation().detail == f"live since generation {rig.state.placement.generation}"
    with_release = [placement for placement in rig.generations if placement.releases]
    assert len(with_release) == 1


def test_a_shard_that_never_comes_does_not_stop_a_deploy_for_good() -> None:
    rig = Rig("s1", "s2")
    rig.see("s1")
    rig.deploy(release("7"))
    rig.now_ms += 60_001
    rig.work(rig.see("s1"))
    assert rig.holders("towers") == ("s1",)
    assert (
        "towers@1 has too few replicas: of the shards that answer (1) none is left for it"
        in rig.operation().detail
    )


def test_a_release_already_live_is_deployed_again_by_one_commit() -> None:
    rig = Rig("s1", "s2").live(release("7"))
    generation = rig.state.placement.generation
    rig.deploy(release("7"), "again")
    assert rig.operation("again").state is OperationState.SUCCEEDED
    assert rig.state.placement.generation == generation + 1
    assert rig.state.placement.traffic == {}


def test_a_refused_bundle_fails_the_deploy_and_leaves_the_old_release_live() -> None:
    rig = Rig("s1", "s2").live(release("7"))
    (first,) = only(LoadModel, rig.deploy(release("8", ranker="broken"), "bad"))
    rig.held[first.shard_id][first.model] = ready(first.model)
    (load,) = only(LoadModel, rig.feed(LoadDone(shard_id=first.shard_id, replica=ready(first.model))))
    error = "model.pt2: has been altered"
    refusal = LoadFailed(shard_id=load.shard_id, model=load.model, error=error, refused=True)
    (finish,) = only(FinishOperation, rig.feed(refusal))
    assert finish.operation.state is OperationState.FAILED
    assert finish.operation.detail == f"{load.shard_id} cannot serve broken@1: {error}"
    assert rig.state.placement.releases["web"] == release("7")
    rig.see()
    unloads = only(UnloadModel, rig.see(after_ms=5_000))
    assert [(unload.shard_id, unload.model) for unload in unloads] == [(first.shard_id, version("broken"))]


def test_a_repaired_bundle_may_be_deployed_at_once() -> None:
    rig = Rig("s1", "s2")
    rig.see()
    for load in only(LoadModel, rig.deploy(release("7"))):
        rig.feed(LoadFailed(shard_id=load.shard_id, model=load.model, error="bad", refused=True))
    assert rig.operation().state is OperationState.FAILED
    rig.work(rig.deploy(release("7"), "again"))
    assert rig.operation("again").state is OperationState.SUCCEEDED


def test_loads_that_break_off_are_repeated_three_times() -> None:
    rig = Rig("s1")
    rig.see()
    loads = only(LoadModel, rig.deploy(release("7")))
    for attempt in range(3):
        assert rig.operation().running
        (load,) = only(LoadModel, loads)
        failure = LoadFailed(shard_id="s1", model=load.model, error="connection lost", refused=False)
        rig.work(rig.feed(failure))
        loads = only(LoadModel, rig.feed(Tick(), after_ms=1000 * 2**attempt))
    assert rig.operation().state is OperationState.FAILED
    assert rig.operation().detail.endswith("connection lost")


def test_a_deploy_without_room_fails_with_the_numbers() -> None:
    rig = Rig("s1", "s2")
    rig.see()
    rig.deploy(release("7"), size_bytes=950)
    assert rig.operation().state is OperationState.FAILED
    assert rig.operation().detail == (
        "no shard can hold towers@1: it needs 950 bytes and the most room on a shard is 900"
    )


def test_a_newer_deploy_of_the_surface_supersedes_the_older() -> None:
    rig = Rig("s1", "s2")
    rig.deploy(release("7"), "old")
    rig.deploy(release("8"), "new")
    rig.deploy(release("1", surface="other"), "other")
    assert rig.operation("old").state is OperationState.CANCELLED
    assert rig.operation("old").detail == "superseded by release '8'"
    assert rig.operation("new").running
    assert rig.operation("other").running


def test_a_deploy_that_takes_too_long_says_what_it_waited_for() -> None:
    rig = Rig("s1", deploy_timeout_ms=2_000)
    rig.see()
    rig.deploy(release("7"))
    rig.feed(Tick(), after_ms=2_001)
    assert rig.operation().detail == "no progress for 2 s: loading towers@1 on s1"


def test_old_bundles_are_unloaded_some_seconds_after_the_flip() -> None:
    rig = Rig("s1", "s2").live(release("7"))
    rig.work(rig.deploy(release("8", ranker="new-ranker"), "next"))
    assert version("ranker") in rig.state.placement.assignments
    rig.work(rig.deploy(release("9", ranker="newest-ranker"), "last"))
    assert version("ranker") not in rig.state.placement.assignments
    rig.see()
    assert only(UnloadModel, rig.see(after_ms=4_999)) == []
    unloads = only(UnloadModel, rig.see(after_ms=1))
    assert [unload.model for unload in unloads] == [version("ranker")] * 2
    rig.work(unloads)
    assert only(UnloadModel, rig.see(after_ms=60_000)) == []


def test_a_bundle_told_to_go_does_not_count_until_it_is_loaded_anew() -> None:
    rig = Rig("s1").live(release("7"))
    rig.work(rig.deploy(release("8", ranker="new-ranker"), "next"))
    rig.work(rig.deploy(release("9", ranker="newest-ranker"), "last"))
    rig.see()
    (unload,) = only(UnloadModel, rig.see(after_ms=5_000))
    rig.deploy(release("7"), "back")
    rig.see()
    assert rig.operation("back").running
    del rig.held["s1"][unload.model]
    rig.work(rig.feed(UnloadDone(shard_id="s1", model=unload.model)))
    assert rig.operation("back").state is OperationState.SUCCEEDED


def test_a_dead_shard_leaves_after_a_second_and_returns_when_ready() -> None:
    rig = Rig("s1", "s2").live(release("7"))
    generation = rig.state.placement.generation
    rig.silence("s2", 1_000)
    assert rig.holders("ranker") == ("s1", "s2")
    rig.feed(Tick(), after_ms=1)
    assert rig.holders("ranker") == ("s1",)
    assert set(rig.state.placement.endpoints) == {"s1"}
    assert rig.state.placement.generation == generation + 1
    assert rig.state.shard_state("s2", rig.now_ms) is ShardState.DOWN

    rig.lives["s2"] += 1
    loading = {m: replace(r, state=ReplicaState.LOADING) for m, r in rig.held["s2"].items()}
    restored, rig.held["s2"] = rig.held["s2"], loading
    rig.see()
    assert rig.holders("ranker") == ("s1",)
    assert rig.state.shard_state("s2", rig.now_ms) is ShardState.STARTING
    rig.held["s2"] = restored
    rig.see()
    assert rig.holders("ranker") == ("s1", "s2")
    assert rig.state.shard_state("s2", rig.now_ms) is ShardState.SERVING


def test_a_shard_that_comes_back_empty_is_loaded_again() -> None:
    rig = Rig("s1", "s2").live(release("7"))
    rig.silence("s2", 2_000)
    rig.held["s2"] = {}
    rig.work(rig.see("s2"))
    assert rig.holders("towers") == ("s1", "s2")


def test_a_slow_shard_is_given_more_time() -> None:
    rig = Rig("s1", "s2").live(release("7"))
    rig.silence("s2", 10_000, refused=False)
    assert rig.holders("ranker") == ("s1", "s2")
    rig.feed(Tick(), after_ms=1)
    assert rig.holders("ranker") == ("s1",)


def test_the_last_replica_stays_in_the_placement() -> None:
    rig = Rig("s1", "s2").live(release("7"))
    rig.silence("s1", 0)
    rig.silence("s2", 5_000)
    rig.silence("s1", 90_000)
    assert rig.holders("ranker")
    assert set(rig.holders("ranker")) <= set(rig.state.placement.endpoints)


def test_a_shard_gone_for_good_is_replaced() -> None:
    rig = Rig("s1", "s2", "s3").live(release("7"))
    assert rig.holders("ranker") == ("s1", "s2")
    rig.silence("s2", 60_000)
    assert rig.holders("ranker") == ("s1",)
    rig.work(rig.feed(Tick(), after_ms=1))
    assert rig.holders("ranker") == ("s1", "s3")


def test_a_shard_that_hangs_is_restarted() -> None:
    rig = Rig("s1", "s2").live(release("7"))
    assert only(StartShard, rig.silence("s2", 30_000, refused=False)) == []
    assert rig.feed(Tick(), after_ms=1)[0] == StartShard(shard_id="s2", restart=True)
    assert only(StartShard, rig.feed(Tick(), after_ms=30_000)) == []
    assert only(StartShard, rig.feed(Tick(), after_ms=1)) == [StartShard(shard_id="s2", restart=True)]


def test_a_shard_that_is_gone_is_left_to_ray_for_as_long_as_a_start_may_take() -> None:
    rig = Rig("s1", "s2").live(release("7"))
    rig.see(after_ms=1_000)
    assert only(StartShard, rig.silence("s2", 30_000)) == []
    assert only(StartShard, rig.feed(Tick(), after_ms=1)) == [StartShard(shard_id="s2", restart=False)]
    assert only(StartShard, rig.feed(Tick(), after_ms=120_000)) == []
    assert only(StartShard, rig.feed(Tick(), after_ms=1)) == [StartShard(shard_id="s2", restart=True)]
    assert only(StartShard, rig.feed(Tick(), after_ms=120_000)) == []


def test_a_shard_that_has_just_come_up_and_is_too_busy_to_answer_is_not_restarted() -> None:
    rig = Rig("s1", "s2").live(release("7"))
    rig.see(after_ms=1_000)
    rig.silence("s2", 60_000)
    assert only(StartShard, rig.silence("s2", 30_000, refused=False)) == []
    assert only(StartShard, rig.feed(Tick(), after_ms=1)) == [StartShard(shard_id="s2", restart=True)]


def test_a_new_address_is_a_new_generation() -> None:
    rig = Rig("s1", "s2").live(release("7"))
    seen = ShardSeen(shard_id="s2", address="127.0.0.1:99", incarnation="2", replicas=dict(rig.held["s2"]))
    generation = rig.state.placement.generation
    rig.feed(seen)
    assert rig.state.placement.generation == generation + 1
    assert rig.state.placement.endpoints["s2"] == "127.0.0.1:99"


def test_a_restarted_controller_changes_nothing_before_it_has_seen_the_shards() -> None:
    before = Rig("s1", "s2").live(release("7"))
    after = Rig("s1", "s2", placement=before.state.placement)
    after.held = before.held
    after.feed(Tick(), after_ms=59_000)
    assert after.generations == []
    assert only(LoadModel, after.see()) == []
    assert after.generations == []
    assert after.state.shard_state("s1", after.now_ms) is ShardState.SERVING


def test_shards_that_are_no_longer_wanted_serve_until_others_do() -> None:
    before = Rig("s1", "s2").live(release("7"))
    after = Rig("s3", "s4", placement=before.state.placement)
    after.feed(Tick())
    assert after.holders("ranker") == ("s1", "s2")
    assert {"s1", "s2"} <= set(after.state.placement.endpoints)
    after.work(after.see())
    assert after.holders("ranker") == ("s3", "s4")
    assert set(after.state.placement.endpoints) == {"s3", "s4"}


def test_after_a_conflict_it_goes_on_from_what_the_store_holds() -> None:
    rig = Rig("s1", "s2").live(release("7"))
    rig.state, actions = step(
        rig.state,
        ShardSeen(shard_id="s2", address="127.0.0.1:99", incarnation="1", replicas=rig.held["s2"]),
        rig.now_ms,
    )
    assert only(CommitPlacement, actions)
    assert only(CommitPlacement, step(rig.state, Tick(), rig.now_ms)[1]) == []
    others = replace(rig.state.placement, generation=40)
    rig.feed(PlacementCommitted(placement=others))
    assert rig.state.placement.generation == 41
    assert rig.state.placement.endpoints["s2"] == "127.0.0.1:99"


def test_generations_go_on_above_what_routers_know() -> None:
    rig = Rig("s1")
    rig.feed(GenerationHeard(generation=40))
    assert rig.state.placement.generation == 41
    rig.feed(GenerationHeard(generation=41))
    assert rig.state.placement.generation == 41
    rig.live(release("7"))
    assert [placement.generation for placement in rig.generations] == [41, 42, 43, 44]


def test_capacity_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="shard_capacity_bytes"):
        ControllerSettings(limits=Limits(), shard_capacity_bytes=0)


happenings = st.lists(
    st.tuples(
        st.sampled_from(["see", "silent", "slow", "die", "work", "fail", "deploy"]),
        st.sampled_from(["s1", "s2", "s3"]),
        st.sampled_from([0, 400, 2_000, 31_000]),
        st.integers(0, 3),
    ),
    max_size=40,
)


@settings(max_examples=60, deadline=None)
@given(happenings)
def test_whatever_happens_routers_are_never_left_without(happenings: list[tuple[str, str, int, int]]) -> None:
    rig = Rig("s1", "s2", "s3").live(release("0"))
    todo: list[Action] = []
    for what, shard_id, after_ms, number in happenings:
        before = rig.state.placement
        rig.now_ms += after_ms
        todo += _happen(rig, what, shard_id, number, todo)
        after = rig.state.placement
        assert after.generation >= before.generation
        for live in after.releases.values():
            for model in live.models():
                assert after.assignments[model].shard_ids
        for assignment in after.assignments.values():
            assert set(assignment.shard_ids) <= set(after.endpoints)
        flipped = [s for s in after.releases if after.releases[s] != before.releases.get(s)]
        for model in (m for s in flipped for m in after.releases[s].models()):
            assert all(rig.state.shards[s].ready(model) for s in after.assignments[model].shard_ids)
    generations = [placement.generation for placement in rig.generations]
    assert generations == sorted(set(generations))


def _happen(rig: Rig, what: str, shard_id: str, number: int, todo: list[Action]) -> tuple[Action, ...]:
    match what:
        case "see":
            return rig.see(shard_id)
        case "silent" | "slow":
            return rig.feed(ShardSilent(shard_id=shard_id, refused=what == "silent"))
        case "die":
            rig.held[shard_id] = {}
            rig.lives[shard_id] += 1
            return rig.feed(ShardSilent(shard_id=shard_id, refused=True))
        case "deploy":
            wanted = release(f"{rig.now_ms}", retriever=f"towers{number % 2}", ranker=f"ranker{number}")
            return rig.deploy(wanted, f"op{rig.now_ms}-{number}")
    loads = [a for a in todo if isinstance(a, LoadModel | UnloadModel)]
    todo.clear()
    if what == "work":
        rig.work(loads)
        return ()
    answers: tuple[Action, ...] = ()
    for load in only(LoadModel, loads):
        refused = number == 0
        answers += rig.feed(LoadFailed(shard_id=load.shard_id, model=load.model, error="e", refused=refused))
    return answers


def test_looks_that_tell_nothing_new_are_decided_on_now_and_then() -> None:
    rig = Rig("s1", "s2", decide_every_ms=250).live(release("7"))
    rig.see(after_ms=250)
    decided_ms = rig.state.decided_ms
    rig.see(after_ms=249)
    assert rig.state.decided_ms == decided_ms
    rig.held["s1"][version("towers")] = replace(ready(version("towers")), requests=7)
    rig.see("s1")
    assert rig.state.decided_ms == decided_ms, "requests are counted, and no reason to decide"
    assert rig.state.shards["s1"].replicas[version("towers")].requests == 7
    rig.held["s2"].clear()
    assert [load.shard_id for load in only(LoadModel, rig.see("s2"))] == ["s2"], (
        "what is lost is loaded at once"
    )
    assert rig.state.decided_ms == rig.now_ms
