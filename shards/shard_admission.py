"""Whether shards may be drained, scaled and restarted and plans applied, as the cluster is now."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from shards.changes import ApplyPlan, Change, DrainShard, RestartShards, ScaleShards, UndrainShard
from shards.cluster_state import ClusterState
from shards.errors import Conflict, FieldViolation, InvalidInput, NotFound, Refused
from shards.operations import running_changes
from shards.planner import PlannedMove
from shards.planning import memory_bytes, moved
from shards.shard_roster import desired_ids, drained_ids, emptied_ids, scaled_ids, settled_ids, shard_number


def check(state: ClusterState, change: Change) -> None:
    """Raise what is wrong with a change of shards; others have nothing to do with them."""
    match change:
        case DrainShard():
            _check_drain(state, change)
        case UndrainShard():
            _check_known(state, change.shard_id)
        case ScaleShards():
            _check_scale(state, change)
        case RestartShards():
            _check_restart(state, change)
        case ApplyPlan():
            _check_apply(state, change)
        case _:
            pass


def _check_known(state: ClusterState, shard_id: str) -> None:
    """Refuse a shard that the cluster has not."""
    if shard_id not in desired_ids(state.configured, state.draft.intent):
        _check_leaving(state, [shard_id])
        raise NotFound("shard", shard_id)


def _check_drain(state: ClusterState, change: DrainShard) -> None:
    """Refuse to drain the last shard, or one that another operation is busy with."""
    _check_known(state, change.shard_id)
    _check_free(state, [change.shard_id])
    drained = drained_ids(state.draft.intent) | {change.shard_id}
    if drained.issuperset(desired_ids(state.configured, state.draft.intent)):
        raise Refused(f"{change.shard_id} is the last shard that is not drained", reason="LAST_SHARD")


def _check_scale(state: ClusterState, change: ScaleShards) -> None:
    """Refuse a second scaling at once, and one that leaves drained shards only."""
    for operation, _ in running_changes(state, ScaleShards):
        raise Conflict(f"operation {operation.operation_id} ({operation.kind}) is under way")
    before = settled_ids(state.configured, state.draft.intent)
    after = scaled_ids(before, change.shards)
    _check_free(state, set(before).difference(after))
    if drained_ids(state.draft.intent).issuperset(after):
        raise Refused("every shard that would be left is drained", reason="LAST_SHARD")


def _check_restart(state: ClusterState, change: RestartShards) -> None:
    """Refuse a second restart at once, and shards that another operation is busy with."""
    for operation, _ in running_changes(state, RestartShards):
        raise Conflict(f"operation {operation.operation_id} ({operation.kind}) is under way")
    for shard_id in change.shard_ids:
        _check_known(state, shard_id)
    _check_free(state, restart_of(state, change).shard_ids)


def restart_of(state: ClusterState, change: RestartShards) -> RestartShards:
    """Return the restart with the shards it names, or all, and the lives of theirs that shall end."""
    wanted = desired_ids(state.configured, state.draft.intent)
    shard_ids = change.shard_ids or tuple(sorted(wanted, key=shard_number))
    lives = {s: state.shards[s].incarnation for s in shard_ids if s in state.shards}
    return replace(change, shard_ids=shard_ids, incarnations=lives | dict(change.incarnations))


def _check_apply(state: ClusterState, change: ApplyPlan) -> None:
    """Refuse a plan of another generation, a second one at once, and moves that cannot be made."""
    for operation, _ in running_changes(state, ApplyPlan):
        raise Conflict(f"operation {operation.operation_id} ({operation.kind}) is under way")
    generation = state.placement.generation
    if change.generation != generation:
        raise Conflict(
            f"the plan was made on generation {change.generation}, and the placement is at {generation}; "
            "plan again"
        )
    check_moves(state, change.moves, "plan.moves")


def check_moves(state: ClusterState, moves: Sequence[PlannedMove], field: str) -> None:
    """Refuse with every move at fault: nothing there to move, nowhere to go, or no room."""
    violations = [
        FieldViolation(f"{field}[{i}]", problem)
        for i, move in enumerate(moves)
        if (problem := _problem(state, move))
    ]
    if violations:
        raise InvalidInput(*violations)
    targets = {**state.planned, **moved(state.planned, ApplyPlan(generation=0, moves=tuple(moves)))}
    for i, move in enumerate(moves):
        if not targets[move.model]:
            violations.append(FieldViolation(f"{field}[{i}]", f"leaves {move.model} without a replica"))
    used: Counter[str] = Counter()
    for model, shard_ids in targets.items():
        used.update(dict.fromkeys(shard_ids, 0 if model in state.on_demand else memory_bytes(state, model)))
    for i, move in enumerate(moves):
        if move.to_shard and used[move.to_shard] > (room := state.capacity_bytes(move.to_shard)):
            problem = f"{move.to_shard} would hold {used[move.to_shard]:,} bytes of {room:,}"
            violations.append(FieldViolation(f"{field}[{i}]", problem))
    if violations:
        raise InvalidInput(*violations)


def _problem(state: ClusterState, move: PlannedMove) -> str:
    holders = state.planned.get(move.model)
    emptied = emptied_ids(state.configured, state.draft.intent, state.shards)
    if holders is None:
        return f"{move.model} is not placed"
    if move.from_shard and move.from_shard not in holders:
        return f"{move.model} is not on {move.from_shard}"
    if move.to_shard in holders:
        return f"{move.model} is on {move.to_shard} already"
    if move.to_shard and move.to_shard not in state.shards:
        return f"{move.to_shard} does not exist"
    if move.to_shard in emptied:
        return f"{move.to_shard} is drained"
    if move.to_shard and state.shards[move.to_shard].silent_since_ms is not None:
        return f"{move.to_shard} does not answer"
    return ""


def _check_leaving(state: ClusterState, shard_ids: Iterable[str]) -> None:
    wanted = desired_ids(state.configured, state.draft.intent)
    for operation, _ in running_changes(state, ScaleShards):
        for shard_id in shard_ids:
            if shard_id in state.shards and shard_id not in wanted:
                raise Conflict(
                    f"operation {operation.operation_id} ({operation.kind}) is taking {shard_id} away"
                )


def _check_free(state: ClusterState, shard_ids: Iterable[str]) -> None:
    """Refuse shards that a running operation drains or restarts."""
    wanted = set(shard_ids)
    kinds: tuple[type[Change], ...] = (DrainShard, RestartShards)
    for kind in kinds:
        for operation, change in running_changes(state, kind):
            busy = {change.shard_id} if isinstance(change, DrainShard) else set(change.shard_ids)  # type: ignore[union-attr]
            if taken := wanted & busy:
                raise Conflict(
                    f"operation {operation.operation_id} ({operation.kind}) is busy with {min(taken)}"
                )
