"""Drain, scale, restart, recycle, plans and policies: operations that a new controller goes on with."""

from dataclasses import replace

import pytest

from shards.changes import (
    ApplyPlan,
    Change,
    DrainShard,
    DropModel,
    HoldModel,
    ModelPolicy,
    RestartShards,
    ScaleShards,
    UndrainShard,
)
from shards.cluster_events import (
    CancelRequested,
    LoadModel,
    RefuseChange,
    RestartShard,
    ShardSeen,
    StartShard,
    StopShard,
    Tick,
)
from shards.cluster_state import BundleFacts
from shards.errors import Conflict, HeadraceError, InvalidInput, NotFound, Refused
from shards.intent import OperationState
from shards.planner import Limits, PlannedMove
from shards.release import Stage
from shards.shard_view import ShardState
from tests.shards.controller_rig import Rig, only, release, version

SOLO = BundleFacts(model=version("solo"), stage=Stage.RANKING, size_bytes=10)


def live(*shard_ids: str, replicas: int = 2) -> Rig:
    rig = Rig(*(shard_ids or ("shard-0", "shard-1", "shard-2")))
    limits = Limits(min_replicas=replicas, max_replicas=replicas)
    rig.state = replace(rig.state, settings=replace(rig.state.settings, limits=limits))
    return rig.live(release("7"))


def refusal(rig: Rig, change: Change) -> HeadraceError:
    (refused,) = only(RefuseChange, rig.change(change, "refused"))
    assert rig.operation("refused").state is OperationState.FAILED
    return refused.error


def move(name: str, source: str, target: str) -> PlannedMove:
    return PlannedMove(
        model=version(name), from_shard=source, to_shard=target, memory_bytes=0, reason="asked for"
    )


def test_a_drained_shard_is_emptied_before_anything_is_let_go() -> None:
    rig = live()
    rig.work(rig.change(DrainShard(shard_id="shard-0"), "drain"))
    assert rig.operation("drain").running
    assert "shard-0" not in rig.holders("ranker")
    assert len(rig.holders("ranker")) == 2
    assert rig.state.shard_state("shard-0", rig.now_ms) is ShardState.DRAINING
    rig.run(10_000)
    assert rig.operation("drain").state is OperationState.SUCCEEDED
    assert rig.operation("drain").detail == "shard-0 is empty"
    assert rig.held["shard-0"] == {}
    assert rig.state.placement.intent.drained == ("shard-0",)
    assert rig.state.shard_state("shard-0", rig.now_ms) is ShardState.DRAINED
    rig.change(UndrainShard(shard_id="shard-0"), "undrain")
    assert not rig.state.placement.intent.drained
    assert rig.state.shard_state("shard-0", rig.now_ms) is ShardState.SERVING


def test_a_drain_that_would_leave_too_few_replicas_fails_and_nothing_moves() -> None:
    rig = live("shard-0", "shard-1")
    rig.work(rig.change(DrainShard(shard_id="shard-1"), "drain"))
    assert rig.operation("drain").state is OperationState.FAILED
    assert rig.operation("drain").detail.startswith("shard-1 cannot be emptied: ranker@1: ")
    assert rig.holders("ranker") == ("shard-0", "shard-1")
    assert rig.state.placement.intent.drained == ()


def test_a_cancelled_drain_leaves_nothing_behind() -> None:
    rig = live()
    rig.change(DrainShard(shard_id="shard-0"), "drain")
    rig.feed(CancelRequested(operation_id="drain"))
    assert rig.operation("drain").state is OperationState.CANCELLED
    rig.run(20_000)
    assert rig.state.shard_state("shard-0", rig.now_ms) is ShardState.SERVING


def test_a_new_controller_goes_on_with_a_drain() -> None:
    before = live()
    before.change(DrainShard(shard_id="shard-0"), "drain")
    after = before.restarted()
    assert after.operation("drain").running
    after.run(15_000)
    assert after.operation("drain").state is OperationState.SUCCEEDED
    assert after.held["shard-0"] == {}


def test_scaling_out_starts_shards_which_take_their_part_and_scaling_in_ends_them() -> None:
    rig = live("shard-0", "shard-1", replicas=1)
    rig.work(rig.change(ScaleShards(shards=4), "out"))
    rig.run(20_000)
    assert rig.operation("out").state is OperationState.SUCCEEDED, rig.operation("out").detail
    assert rig.state.placement.intent.shard_ids == ("shard-0", "shard-1", "shard-2", "shard-3")
    assert set(rig.state.shards) == set(rig.state.placement.endpoints) == set(rig.held)

    rig.work(rig.change(ScaleShards(shards=1), "in"))
    rig.run(40_000)
    assert rig.operation("in").state is OperationState.SUCCEEDED, rig.operation("in").detail
    assert sorted(rig.stopped) == ["shard-1", "shard-2", "shard-3"]
    assert set(rig.state.shards) == {"shard-0"} == set(rig.state.placement.endpoints)
    assert rig.holders("ranker") == rig.holders("towers") == ("shard-0",)


def test_beside_shards_that_serve_new_ones_start_one_after_the_other() -> None:
    rig = live("shard-0", "shard-1")
    before = only(StartShard, rig.log)
    rig.change(ScaleShards(shards=4), "out")
    for _ in range(5):
        rig.see("shard-0", "shard-1", after_ms=1_000)
    started = [start.shard_id for start in only(StartShard, rig.log) if start not in before]
    assert started == ["shard-2"]
    rig.held["shard-2"], rig.lives["shard-2"] = {}, 1
    rig.see("shard-2", after_ms=1_000)
    rig.feed(Tick(), after_ms=1_000)
    started = [start.shard_id for start in only(StartShard, rig.log) if start not in before]
    assert started == ["shard-2", "shard-3"]


def test_a_new_controller_goes_on_with_scaling_in_and_a_cancel_keeps_the_shards() -> None:
    rig = live()
    rig.change(ScaleShards(shards=2), "in")
    rig = rig.restarted()
    rig.see()
    assert only(StopShard, rig.log) == []
    rig.feed(CancelRequested(operation_id="in"))
    rig.run(20_000)
    assert rig.stopped == []
    assert set(rig.state.shards) == {"shard-0", "shard-1", "shard-2"}


@pytest.mark.parametrize("replicas", [1, 2])
def test_shards_are_restarted_one_by_one_and_never_while_they_are_needed(replicas: int) -> None:
    rig = live(replicas=replicas)
    lives = dict(rig.lives)
    rig.work(rig.change(RestartShards(shard_ids=()), "restart"))
    for _ in range(60):
        actions = rig.see(after_ms=1_000)
        for action in only(RestartShard, actions):
            named = {a.shard_ids for a in rig.state.placement.assignments.values()}
            assert all(action.shard_id not in shard_ids for shard_ids in named)
        assert len(only(RestartShard, actions)) <= 1
        rig.work(actions)
    assert rig.operation("restart").state is OperationState.SUCCEEDED, rig.operation("restart").detail
    assert all(rig.lives[s] == lives[s] + 1 for s in lives)
    assert len(rig.holders("ranker")) == replicas


def test_a_restarted_shard_that_takes_long_to_start_is_not_ended_again() -> None:
    rig = live()
    rig.change(RestartShards(shard_ids=("shard-0",), incarnations={"shard-0": "1"}), "restart")
    while not (told := only(RestartShard, rig.log)):
        for action in rig.see(after_ms=1_000):
            rig.work([] if isinstance(action, RestartShard) else [action])
    assert [action.shard_id for action in told] == ["shard-0"]
    actions = rig.silence("shard-0", 119_000)
    assert only(RestartShard, actions) == []
    assert only(RestartShard, rig.feed(Tick(), after_ms=2_000)) == told


def test_the_only_shard_is_not_restarted_under_what_it_serves() -> None:
    rig = live("shard-0", replicas=1)
    rig.work(rig.change(RestartShards(shard_ids=("shard-0",)), "restart"))
    assert rig.operation("restart").state is OperationState.FAILED
    assert "shard-0 cannot be restarted without losing ranker@1" in rig.operation("restart").detail
    assert only(RestartShard, rig.log) == []


def test_a_shard_that_asks_for_it_is_recycled_once() -> None:
    rig = live()
    rig.feed(
        ShardSeen(
            shard_id="shard-1",
            address="127.0.0.1:1",
            incarnation="1",
            replicas=dict(rig.held["shard-1"]),
            recycle_reason="a library leaks",
        )
    )
    rig.run(15_000)
    assert len(only(RestartShard, rig.log)) == 1
    (operation,) = [o for o in rig.state.operations.values() if isinstance(o.change, RestartShards)]
    assert operation.state is OperationState.SUCCEEDED


def test_a_plan_is_applied_make_before_break_and_gone_on_with() -> None:
    rig = live()
    source = rig.holders("ranker")[0]
    (target,) = set(rig.held) - set(rig.holders("ranker"))
    plan = ApplyPlan(generation=rig.state.placement.generation, moves=(move("ranker", source, target),))
    rig.change(plan, "apply")
    assert source in rig.holders("ranker")
    assert isinstance(refusal(rig, plan), Conflict)
    rig = rig.restarted()
    rig.run(3_000)
    assert rig.operation("apply").state is OperationState.SUCCEEDED
    assert target in rig.holders("ranker")
    assert source not in rig.holders("ranker")
    assert "the plan was made on generation" in str(refusal(rig, plan))


def test_impossible_moves_are_refused_with_the_move_at_fault() -> None:
    rig = live()
    source = rig.holders("ranker")[0]
    (target,) = set(rig.held) - set(rig.holders("ranker"))
    for bad, words in [
        (move("nobody", source, target), "nobody@1 is not placed"),
        (move("ranker", target, source), f"ranker@1 is not on {target}"),
        (move("ranker", source, "shard-9"), "shard-9 does not exist"),
        (move("ranker", "", source), f"ranker@1 is on {source} already"),
    ]:
        plan = ApplyPlan(generation=rig.state.placement.generation, moves=(bad,))
        error = refusal(rig, plan)
        assert isinstance(error, InvalidInput)
        assert str(error) == f"plan.moves[0]: {words}"


def test_a_cancelled_plan_stays_where_it_was() -> None:
    rig = live()
    before = rig.holders("ranker")
    (target,) = set(rig.held) - set(before)
    plan = ApplyPlan(generation=rig.state.placement.generation, moves=(move("ranker", before[0], target),))
    rig.change(plan, "apply")
    rig.feed(CancelRequested(operation_id="apply"))
    rig.run(10_000)
    assert rig.holders("ranker") == before


def test_a_bundle_is_held_on_its_own_with_terms_until_it_is_dropped() -> None:
    rig = live()
    policy = ModelPolicy(model=SOLO.model, min_replicas=1, max_replicas=1, pinned=True)
    actions = rig.change(HoldModel(policy=policy), "hold", bundles=(SOLO,))
    assert [load.pinned for load in only(LoadModel, actions)] == [True]
    rig.work(actions)
    assert rig.operation("hold").state is OperationState.SUCCEEDED
    assert len(rig.holders("solo")) == 1
    assert rig.state.placement.intent.policies == {SOLO.model: policy}
    rig.change(DropModel(model=SOLO.model), "drop")
    rig.run(10_000)
    assert rig.operation("drop").state is OperationState.SUCCEEDED
    assert SOLO.model not in rig.state.placement.assignments
    assert all(SOLO.model not in held for held in rig.held.values())


def test_only_the_policy_of_a_pinned_bundle_is_dropped() -> None:
    rig = live()
    assert "web@7 pins ranker@1" in str(refusal(rig, DropModel(model=version("ranker"))))
    assert isinstance(refusal(rig, DropModel(model=SOLO.model)), NotFound)
    rig.work(rig.change(HoldModel(policy=ModelPolicy(model=version("ranker"), min_replicas=1)), "hold"))
    rig.change(DropModel(model=version("ranker")), "drop")
    assert rig.operation("drop").detail == "a release still pins it"
    assert len(rig.holders("ranker")) == 2


def test_a_change_of_a_shard_that_is_busy_or_unknown_is_refused() -> None:
    rig = live()
    assert isinstance(refusal(rig, DrainShard(shard_id="shard-9")), NotFound)
    rig.change(DrainShard(shard_id="shard-1"), "drain")
    for change in (
        DrainShard(shard_id="shard-1"),
        RestartShards(shard_ids=("shard-1",)),
        RestartShards(shard_ids=()),
        ScaleShards(shards=1),
    ):
        error = refusal(rig, change)
        assert isinstance(error, Conflict)
        assert str(error) == "operation drain (drain-shard) is busy with shard-1"
    rig.change(ScaleShards(shards=2), "in")
    assert str(refusal(rig, ScaleShards(shards=5))) == "operation in (scale-shards) is under way"
    assert "is taking shard-2 away" in str(refusal(rig, DrainShard(shard_id="shard-2")))
    assert isinstance(refusal(rig, DrainShard(shard_id="shard-0")), Refused)
