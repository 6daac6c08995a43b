"""What a plan would do to every shard, before anything is done: memory, load, bytes and time."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from shards.changes import ApplyPlan
from shards.cluster_state import ClusterState
from shards.load_rates import model_rates
from shards.planner import Assigned, Plan, PlannedMove, plan
from shards.planning import memory_bytes, moved, needs, previous
from shards.release import ModelVersion
from shards.shard_admission import check_moves

_FIRST_LOAD_S = 1.0
"""Time that a load is taken to need while none was measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardForecast:
    """One shard before and after a plan; loads in requests per second."""

    shard_id: str
    capacity_bytes: int
    before_bytes: int
    after_bytes: int
    load_before: float
    load_after: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanForecast:
    """A plan made on a generation and not applied, and what it would do."""

    generation: int
    plan: Plan
    shards: tuple[ShardForecast, ...]
    moved_bytes: int
    duration_s: float


def forecast(state: ClusterState, moves: tuple[PlannedMove, ...], now_ms: int) -> PlanForecast:
    """Return what the planner, or these moves, would do now; raises `InvalidInput` for an impossible move."""
    before = previous(state)
    if moves:
        check_moves(state, moves, "moves")
        assignments = {**before, **moved(before, ApplyPlan(generation=0, moves=moves))}
        told = tuple(_told(state, move, assignments[move.model]) for move in moves)
        answer = Plan(assignments=assignments, moves=told)
    else:
        shards, models, loads, limits = needs(state, now_ms, balance=True)
        answer = plan(now_ms, shards, models, loads, before, limits)
    loads = model_rates(state.samples, now_ms)
    return PlanForecast(
        generation=state.placement.generation,
        plan=answer,
        shards=_shards(state, before, answer.assignments, loads),
        moved_bytes=sum(move.memory_bytes for move in answer.moves if move.to_shard),
        duration_s=_duration_s(state, answer.moves),
    )


def _told(state: ClusterState, move: PlannedMove, after: tuple[str, ...]) -> PlannedMove:
    """Return a move that was asked for with its size, and with what speaks against it."""
    reason = "; ".join(filter(None, (move.reason, _crowding(state, move, after))))
    return replace(move, memory_bytes=memory_bytes(state, move.model), reason=reason)


def _crowding(state: ClusterState, move: PlannedMove, after: tuple[str, ...]) -> str:
    """Return the warning that replicas will share a node, where another node could do without that."""
    nodes = {view.shard_id: view.node for view in state.shards.values()}
    node = nodes.get(move.to_shard, "")
    beside = sum(nodes.get(shard_id) == node for shard_id in after)
    if not node or beside < 2 or set(nodes.values()) <= {nodes.get(shard_id) for shard_id in after}:
        return ""
    return f"node {node} will hold {beside} of {len(after)} replicas"


def _shards(
    state: ClusterState, before: Assigned, after: Assigned, loads: Mapping[ModelVersion, float]
) -> tuple[ShardForecast, ...]:
    bytes_before, load_before = _sums(state, before, loads)
    bytes_after, load_after = _sums(state, after, loads)
    return tuple(
        ShardForecast(
            shard_id=shard_id,
            capacity_bytes=state.capacity_bytes(shard_id),
            before_bytes=bytes_before[shard_id],
            after_bytes=bytes_after[shard_id],
            load_before=load_before.get(shard_id, 0.0),
            load_after=load_after.get(shard_id, 0.0),
        )
        for shard_id in sorted(state.shards)
    )


def _sums(
    state: ClusterState, assigned: Assigned, loads: Mapping[ModelVersion, float]
) -> tuple[Counter[str], dict[str, float]]:
    """Return memory and load of each shard; replicas share the load of their bundle evenly."""
    used_bytes: Counter[str] = Counter()
    load: dict[str, float] = {}
    for model, shard_ids in assigned.items():
        for shard_id in shard_ids:
            used_bytes[shard_id] += memory_bytes(state, model)
            load[shard_id] = load.get(shard_id, 0.0) + loads.get(model, 0.0) / len(shard_ids)
    return used_bytes, load


def _duration_s(state: ClusterState, moves: tuple[PlannedMove, ...]) -> float:
    """Return how long the loads take, each shard one after the other, and then the unloads."""
    busy_s: dict[str, float] = {}
    for move in moves:
        if move.to_shard:
            busy_s[move.to_shard] = busy_s.get(move.to_shard, 0.0) + _load_s(state, move.model)
    unloads_s = state.settings.unload_after_ms / 1000 if any(move.from_shard for move in moves) else 0.0
    return max(busy_s.values(), default=0.0) + unloads_s


def _load_s(state: ClusterState, model: ModelVersion) -> float:
    """Return the time that a load of the bundle took, or else what loads took on average."""
    replicas = [replica for view in state.shards.values() for replica in view.replicas.values()]
    own = [replica.load_time_ms for replica in replicas if replica.model == model and replica.load_time_ms]
    others = [replica.load_time_ms for replica in replicas if replica.load_time_ms]
    if own:
        return max(own) / 1000
    return sum(others) / len(others) / 1000 if others else _FIRST_LOAD_S
