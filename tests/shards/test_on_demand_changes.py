"""What a controller does with bundles held on demand: given up, pinned, moved while they load."""

from dataclasses import replace

from shards.changes import ApplyPlan, HoldModel, ModelPolicy
from shards.cluster_events import LoadModel
from shards.cluster_state import BundleFacts
from shards.intent import OperationState
from shards.planner import Limits, PlannedMove
from shards.release import Stage
from shards.replica import ReplicaState
from tests.shards.controller_rig import Rig, only, ready, release, version

SOLO = BundleFacts(model=version("solo"), stage=Stage.RANKING, size_bytes=10)
SOLO_ON_DEMAND = ModelPolicy(model=SOLO.model, on_demand=True)


def live() -> Rig:
    rig = Rig("shard-0", "shard-1")
    limits = Limits(min_replicas=1, max_replicas=1)
    rig.state = replace(rig.state, settings=replace(rig.state.settings, limits=limits))
    return rig.live(release("7"))


def told(rig: Rig, state: ReplicaState, error: str = "") -> tuple[LoadModel, ...]:
    """Let the shard that holds SOLO report it so; returns what is to be loaded then."""
    (shard_id,) = rig.holders("solo")
    replica = replace(ready(SOLO.model), state=state, error=error)
    rig.held[shard_id][SOLO.model] = replica
    return tuple(only(LoadModel, rig.see(shard_id, after_ms=100)))


def held_on_demand() -> Rig:
    rig = live()
    rig.work(rig.change(HoldModel(policy=SOLO_ON_DEMAND), "hold", bundles=(SOLO,)))
    assert told(rig, ReplicaState.COLD) == ()
    assert rig.operation("hold").state is OperationState.SUCCEEDED
    return rig


def test_what_a_shard_gave_up_loading_waits_for_an_operator() -> None:
    rig = held_on_demand()
    before = rig.holders("solo")
    assert told(rig, ReplicaState.FAILED, "failed 3 times") == ()
    assert rig.run(120_000).holders("solo") == before
    assert only(LoadModel, rig.log)[-1].model == SOLO.model
    loads = len(only(LoadModel, rig.log))
    (again,) = only(LoadModel, rig.change(HoldModel(policy=SOLO_ON_DEMAND), "again", bundles=(SOLO,)))
    assert (again.model, again.on_demand, loads) == (SOLO.model, True, loads)
    assert rig.operation("again").running


def test_a_pinned_bundle_is_held_once_it_is_loaded_and_on_demand_again_afterwards() -> None:
    rig = held_on_demand()
    pinned = replace(SOLO_ON_DEMAND, pinned=True)
    (load,) = only(LoadModel, rig.change(HoldModel(policy=pinned), "pin"))
    assert (load.on_demand, load.pinned) == (False, True)
    told(rig, ReplicaState.COLD)
    assert rig.operation("pin").running
    rig.work((load,))
    assert rig.operation("pin").state is OperationState.SUCCEEDED
    (load,) = only(LoadModel, rig.change(HoldModel(policy=SOLO_ON_DEMAND), "unpin"))
    assert (load.on_demand, load.pinned) == (True, False)


def test_a_bundle_that_loads_on_one_shard_is_not_brought_to_another_meanwhile() -> None:
    rig = held_on_demand()
    (source,) = rig.holders("solo")
    target = next(shard_id for shard_id in rig.held if shard_id != source)
    told(rig, ReplicaState.LOADING)
    plan = ApplyPlan(
        generation=rig.state.placement.generation,
        moves=(
            PlannedMove(
                model=SOLO.model, from_shard=source, to_shard=target, memory_bytes=1, reason="asked for"
            ),
        ),
    )
    assert only(LoadModel, rig.change(plan, "apply")) == []
    (load,) = told(rig, ReplicaState.READY)
    assert (load.shard_id, load.model) == (target, SOLO.model)
