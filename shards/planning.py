"""What the planner is told of a cluster, and when it is asked again."""

from collections.abc import Mapping
from dataclasses import replace

from shards import releases
from shards.changes import ApplyPlan, ModelPolicy, ScaleShards
from shards.cluster_state import ClusterState
from shards.operations import running, running_changes
from shards.placement import Placement
from shards.planner import Assigned, Limits, Mode, ModelFacts, ShardFacts, plan
from shards.release import ModelVersion, Release
from shards.replica import ReplicaState
from shards.rolling_restart import doubled
from shards.shard_roster import desired_ids, emptied_ids
from shards.shard_view import ShardView

Needs = tuple[tuple[ShardFacts, ...], tuple[ModelFacts, ...], Mapping[ModelVersion, float], Limits]
"""What the planner decides on, beside the plan before."""


def planned_of(placement: Placement) -> dict[ModelVersion, tuple[str, ...]]:
    """Return where a committed placement wants every bundle: where it is, or where a plan moves it."""
    planned = {model: assignment.shard_ids for model, assignment in placement.assignments.items()}
    for operation in placement.intent.operations:
        if operation.running and isinstance(operation.change, ApplyPlan):
            planned |= moved(planned, operation.change)
    return planned


def moved(planned: Assigned, change: ApplyPlan) -> dict[ModelVersion, tuple[str, ...]]:
    """Return where the bundles that a plan moves shall be; moves that are made already change nothing."""
    targets: dict[ModelVersion, tuple[str, ...]] = {}
    for move in change.moves:
        shard_ids = set(targets.get(move.model, planned.get(move.model, ())))
        targets[move.model] = tuple(sorted(shard_ids - {move.from_shard} | {move.to_shard} - {""}))
    return targets


def replanned(state: ClusterState, now_ms: int) -> ClusterState:
    """Return the state with a new plan, if there is reason for one."""
    if state.draft.intent.frozen:
        return state
    due = _is_due(state, now_ms)
    balance = due or _joined(state, now_ms)
    facts = needs(state, now_ms, balance=balance)
    state = replace(state, on_demand=frozenset(m.model for m in facts[1] if m.on_demand))
    planned_on = (facts, _gone(facts, now_ms))
    next_round = state.deferred > 0 and settled(state, now_ms)
    if planned_on == state.planned_on and not next_round and not due:
        return state
    answer = plan(now_ms, *facts[:3], previous(state), facts[3])
    return replace(
        state,
        planned=answer.assignments,
        unplaced={unplaced.model: unplaced.reason for unplaced in answer.unplaced},
        # A round that moves nothing has none after it.
        deferred=answer.deferred if answer.moves else 0,
        planned_on=planned_on,
        rebalanced_ms=now_ms if balance else state.rebalanced_ms,
    )


def _gone(facts: Needs, now_ms: int) -> tuple[bool, ...]:
    """Return of each lost shard whether its time of grace is over, which is all that the time decides."""
    shards, _, _, limits = facts
    return tuple(now_ms - s.lost_since_ms > limits.grace_ms for s in shards if s.lost_since_ms is not None)


def needs(state: ClusterState, now_ms: int, *, balance: bool) -> Needs:
    """Return what the planner is told; `balance` asks for the best plan rather than for the nearest."""
    emptied = emptied_ids(state.configured, state.draft.intent, state.shards)
    shards = tuple(
        _shard_facts(state, view, now_ms, drained=view.shard_id in emptied)
        for _, view in sorted(state.shards.items())
    )
    mode = Mode.PERIODIC if balance else Mode.EMERGENCY
    return shards, _models(state, now_ms), state.loads, replace(state.settings.limits, mode=mode)


def _shard_facts(state: ClusterState, view: ShardView, now_ms: int, *, drained: bool) -> ShardFacts:
    absent = not view.incarnation or state.lost(view.shard_id, now_ms)
    return ShardFacts(
        shard_id=view.shard_id,
        node=view.node,
        capacity_bytes=state.capacity_bytes(view.shard_id),
        gpu_capacity_bytes=view.gpu_capacity_bytes,
        lost_since_ms=view.silent_since_ms if absent else None,
        drained=drained,
    )


def _models(state: ClusterState, now_ms: int) -> tuple[ModelFacts, ...]:
    """Return the facts of every bundle that is to be held; what is new waits until the shards are there."""
    wanted = list(releases.loaded(state.draft))
    if not awaited(state, now_ms):
        wanted += [(release, False) for release in releases.arriving(state)]
    policies = releases.policies(state)
    pins: dict[ModelVersion, list[tuple[Release, bool]]] = {}
    groups: dict[ModelVersion, str] = {}
    for release, optional in wanted:
        groups = release.partition_groups() | groups
        for model in release.models():
            pins.setdefault(model, []).append((release, optional))
    twice = doubled(state, now_ms)
    alone = [model for model, policy in policies.items() if policy.standalone]
    return tuple(
        _doubled(state, facts) if facts.model in twice else facts
        for model in dict.fromkeys([*pins, *alone])
        for facts in (
            _model_facts(state, model, pins.get(model, []), policies.get(model), groups.get(model, "")),
        )
    )


def _doubled(state: ClusterState, facts: ModelFacts) -> ModelFacts:
    """Return the facts of a bundle that must answer from a second shard while one is restarted."""
    limits = state.settings.limits
    return replace(
        facts,
        min_replicas=max(2, facts.min_replicas or limits.min_replicas),
        max_replicas=max(2, facts.max_replicas or limits.max_replicas),
    )


def _model_facts(
    state: ClusterState,
    model: ModelVersion,
    pins: list[tuple[Release, bool]],
    policy: ModelPolicy | None,
    group: str,
) -> ModelFacts:
    """Return the facts of one bundle; `group` is what the partitions of its catalogue have in common."""
    pinned_alone = policy is not None and policy.standalone
    on_demand = bool(pins) and not pinned_alone and all(release.on_demand for release, _ in pins)
    if policy:
        on_demand = (policy.on_demand or on_demand) and not policy.pinned
    least = policy.min_replicas if policy else None
    return ModelFacts(
        model=model,
        memory_bytes=memory_bytes(state, model),
        gpu_memory_bytes=state.measured_gpu_bytes.get(model, 0),
        releases=frozenset(release.name for release, _ in pins),
        min_replicas=1 if on_demand and least is None else least,
        max_replicas=policy.max_replicas if policy else None,
        group=group,
        optional=not pinned_alone and all(optional for _, optional in pins),
        on_demand=on_demand,
    )


def memory_bytes(state: ClusterState, model: ModelVersion) -> int:
    """Return what a replica was measured to use; before the first load, its size on disk."""
    bundle = state.bundles.get(model)
    return state.measured_bytes.get(model, bundle.size_bytes if bundle else 0)


def previous(state: ClusterState) -> Assigned:
    """Return the plan before; a bundle that it does not know is planned where it is found loaded."""
    found: dict[ModelVersion, tuple[str, ...]] = {}
    for shard_id, view in sorted(state.shards.items()):
        for model, replica in view.replicas.items():
            if replica.state is ReplicaState.READY and model not in state.planned:
                found[model] = (*found.get(model, ()), shard_id)
    return {**found, **state.planned}


def awaited(state: ClusterState, now_ms: int) -> list[str]:
    """Return the shards that have never answered and still may."""
    wanted = desired_ids(state.configured, state.draft.intent)
    return [
        s
        for s, view in sorted(state.shards.items())
        if not view.incarnation and s in wanted and not state.lost(s, now_ms)
    ]


def settled(state: ClusterState, now_ms: int) -> bool:
    """Return whether every bundle is where it is planned, and routers know."""
    return all(
        assignment.shard_ids == tuple(sorted(state.planned.get(model, assignment.shard_ids)))
        and all(state.serves(shard_id, model, now_ms) for shard_id in assignment.shard_ids)
        for model, assignment in state.placement.assignments.items()
    )


def _is_due(state: ClusterState, now_ms: int) -> bool:
    """Return whether a calm cluster was last balanced long ago."""
    every_ms = state.settings.rebalance_every_ms
    return (
        0 < every_ms <= now_ms - state.rebalanced_ms
        and not running(state)
        and all(view.silent_since_ms is None for view in state.shards.values())
        and settled(state, now_ms)
    )


def _joined(state: ClusterState, now_ms: int) -> bool:
    """Return whether new shards have joined and shall take their part."""
    grown = [
        change.shards
        for _, change in running_changes(state, ScaleShards)
        if change.shards >= len(state.draft.intent.shard_ids or state.configured)
    ]
    return bool(grown) and not awaited(state, now_ms)
