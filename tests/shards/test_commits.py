"""One compare-and-set holds placement and intent: what it refuses never was, and nothing is lost."""

from dataclasses import replace

from shards.changes import DrainShard, FreezeCluster, HoldModel, ModelPolicy, ScaleShards
from shards.cluster_events import (
    ChangeRequested,
    CommitFailed,
    CommitPlacement,
    LoadModel,
    PlacementCommitted,
    RefuseChange,
    ShardSeen,
    Tick,
)
from shards.cluster_state import BundleFacts
from shards.controller import step
from shards.errors import Unavailable
from shards.intent import Operation, OperationState
from shards.release import Stage
from shards.replica import Replica, ReplicaState
from tests.shards.controller_rig import Rig, only, ready, release, version


def live() -> Rig:
    return Rig("s1", "s2", "s3").live(release("7"))


def asked(rig: Rig) -> CommitPlacement:
    """Ask for a drain; returns the commit that is not answered yet."""
    drain = ChangeRequested(operation_id="drain", change=DrainShard(shard_id="s1"))
    rig.state, actions = step(rig.state, drain, rig.now_ms)
    (commit,) = only(CommitPlacement, actions)
    rig.work(only(LoadModel, actions))
    return commit


def test_a_change_that_cannot_be_stored_has_failed_and_the_next_may_succeed() -> None:
    rig = live()
    before = rig.state.placement
    asked(rig)
    rig.state, actions = step(rig.state, CommitFailed(error="No space left on device"), rig.now_ms)
    (refusal,) = only(RefuseChange, actions)
    assert isinstance(refusal.error, Unavailable)
    assert rig.operation("drain").state is OperationState.FAILED
    assert "No space left on device" in rig.operation("drain").detail
    assert rig.state.placement == rig.state.draft == before
    rig.work(rig.change(DrainShard(shard_id="s1"), "again"))
    assert rig.state.placement == before, "the store is given a moment"
    rig.run(10_000)
    assert rig.operation("again").state is OperationState.SUCCEEDED


def test_after_a_conflict_the_other_controllers_intent_holds_and_ours_is_asked_for_again() -> None:
    rig = live()
    asked(rig)
    theirs = Operation(operation_id="theirs", change=ScaleShards(shards=4), start_ms=rig.now_ms)
    intent = replace(rig.state.placement.intent, operations=(theirs,))
    stored = replace(rig.state.placement, generation=40, intent=intent)
    rig.feed(PlacementCommitted(placement=stored))
    assert {o.operation_id for o in rig.state.placement.intent.operations} == {"theirs", "drain"}
    assert rig.state.placement.generation == 41
    assert "shard-0" in rig.state.shards, "their scaling is gone on with"


def test_after_a_conflict_a_change_that_contradicts_the_others_is_refused() -> None:
    rig = live()
    asked(rig)
    intent = replace(rig.state.placement.intent, frozen=True)
    rig.feed(PlacementCommitted(placement=replace(rig.state.placement, generation=40, intent=intent)))
    assert rig.operation("drain").state is OperationState.FAILED
    assert "frozen" in rig.operation("drain").detail
    assert rig.state.placement.generation == 40


def test_progress_alone_is_no_reason_for_a_generation() -> None:
    rig = live()
    rig.change(DrainShard(shard_id="s1"), "drain")
    generation = rig.state.placement.generation
    loading = rig.operation("drain").detail
    for _ in range(5):
        rig.see(after_ms=100)
    assert rig.state.placement.generation == generation
    assert "bundles are left on s1" in loading


def test_an_operation_has_ended_only_when_its_end_is_committed() -> None:
    rig = live()
    freeze = ChangeRequested(operation_id="freeze", change=FreezeCluster(frozen=True))
    rig.state, actions = step(rig.state, freeze, rig.now_ms)
    assert rig.operation("freeze").running
    (commit,) = only(CommitPlacement, actions)
    rig.feed(PlacementCommitted(placement=commit.placement))
    assert rig.operation("freeze").state is OperationState.SUCCEEDED


def test_a_bundle_on_demand_serves_while_it_is_cold_and_while_it_loads() -> None:
    rig = live()
    solo = BundleFacts(model=version("solo"), stage=Stage.RANKING, size_bytes=10)
    policy = ModelPolicy(model=solo.model, on_demand=True)
    (load,) = only(LoadModel, rig.change(HoldModel(policy=policy), "hold", bundles=(solo,)))
    assert load.on_demand
    for state in (ReplicaState.COLD, ReplicaState.LOADING, ReplicaState.READY):
        cold = Replica(model=solo.model, stage=Stage.RANKING, state=state)
        rig.held[load.shard_id][solo.model] = cold
        rig.state = replace(rig.state, loading=frozenset())
        rig.feed(
            ShardSeen(
                shard_id=load.shard_id,
                address=f"127.0.0.1:{load.shard_id[-1]}",
                incarnation="1",
                replicas=dict(rig.held[load.shard_id]),
            )
        )
        assert rig.holders("solo") == (load.shard_id,), state
    assert rig.operation("hold").state is OperationState.SUCCEEDED
    assert rig.feed(Tick()) == ()
    assert ready(solo.model).state is ReplicaState.READY
