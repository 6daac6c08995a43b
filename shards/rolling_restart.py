"""Restarting shards one after the other, none before all that it holds answers elsewhere."""

from collections.abc import Iterator
from dataclasses import replace

from shards.changes import RestartShards
from shards.cluster_state import ClusterState
from shards.intent import Operation
from shards.operations import is_durable, running, running_changes, start
from shards.release import ModelVersion
from shards.shard_roster import desired_ids
from shards.shard_view import ShardView

_RECYCLE_AGAIN_MS = 600_000
"""A shard that still asks for it after a restart is not restarted again before this time."""


def turn(state: ClusterState, change: RestartShards, now_ms: int) -> str | None:
    """Return the shard whose turn it is; None when every one has been restarted and serves again."""
    return next((s for s in change.shard_ids if not renewed(state, change, s, now_ms)), None)


def renewed(state: ClusterState, change: RestartShards, shard_id: str, now_ms: int) -> bool:
    """Return whether a shard lives anew and serves all that is planned on it; so does one that is no more."""
    view = state.shards.get(shard_id)
    if view is None:
        return True
    return (
        not _is_old(view, change)
        and not state.lost(shard_id, now_ms)
        and all(
            state.serves(shard_id, model, now_ms) for model, ids in state.planned.items() if shard_id in ids
        )
    )


def _is_old(view: ShardView, change: RestartShards) -> bool:
    return not view.incarnation or view.incarnation == change.incarnations.get(view.shard_id)


def doubled(state: ClusterState, now_ms: int) -> frozenset[ModelVersion]:
    """Return the bundles that need two replicas, because a shard that holds them is being restarted."""
    turns = {turn(state, change, now_ms) for _, change in running_changes(state, RestartShards)}
    return frozenset(model for model, ids in state.planned.items() if turns.intersection(ids))


def resting(state: ClusterState, now_ms: int) -> Iterator[tuple[Operation, ShardView]]:
    """Yield the shards to be restarted that nothing depends on any more, so that routers shall leave them."""
    for operation, change in running_changes(state, RestartShards):
        shard_id = turn(state, change, now_ms)
        if shard_id and _is_old(state.shards[shard_id], change) and not sole(state, shard_id, now_ms):
            yield operation, state.shards[shard_id]


def sole(state: ClusterState, shard_id: str, now_ms: int) -> list[ModelVersion]:
    """Return the bundles that routers can ask no other shard for."""
    return [
        model
        for model, assignment in state.placement.assignments.items()
        if shard_id in assignment.shard_ids
        and not any(
            other != shard_id and state.serves(other, model, now_ms)
            for other in {*assignment.shard_ids, *state.planned.get(model, ())}
        )
    ]


def due(state: ClusterState, now_ms: int) -> list[ShardView]:
    """Return the shards to restart now: routers have not been told of them for a while."""
    if state.draft.intent.frozen:
        return []
    return [
        view
        for operation, view in resting(state, now_ms)
        if is_durable(state, operation)
        and is_idle(state, view, now_ms)
        and not is_ending(state, view, now_ms)
    ]


def is_idle(state: ClusterState, view: ShardView, now_ms: int) -> bool:
    """Return whether no router asks a shard any more."""
    since_ms = state.idle_ms.get(view.shard_id)
    return since_ms is not None and now_ms - since_ms >= state.settings.unload_after_ms


def is_ending(state: ClusterState, view: ShardView, now_ms: int) -> bool:
    """Return whether this life of a shard was told to end, not long ago; the next may take long to start."""
    asked = view.ending_ms is not None and view.ending_incarnation == view.incarnation
    patience_ms = state.settings.missing_after_ms if view.refused else state.settings.restart_after_ms
    return asked and now_ms - (view.ending_ms or 0) <= patience_ms


def recycled(state: ClusterState, now_ms: int) -> ClusterState:
    """Return the state with a restart under way for one shard whose process asks for it."""
    if state.draft.intent.frozen or any(isinstance(o.change, RestartShards) for o in running(state)):
        return state
    wanted = desired_ids(state.configured, state.draft.intent)
    for view in state.shards.values():
        asks = view.recycle_reason and view.silent_since_ms is None and view.shard_id in wanted
        if asks and not _restarted_lately(state, view.shard_id, now_ms):
            change = RestartShards(shard_ids=(view.shard_id,), incarnations={view.shard_id: view.incarnation})
            name = f"recycle-{view.shard_id}-{now_ms}"
            return start(state, Operation(operation_id=name, change=change, start_ms=now_ms))
    return state


def _restarted_lately(state: ClusterState, shard_id: str, now_ms: int) -> bool:
    return any(
        isinstance(operation.change, RestartShards)
        and shard_id in operation.change.shard_ids
        and now_ms - operation.start_ms < _RECYCLE_AGAIN_MS
        for operation in state.draft.intent.operations
    )


def told_to_end(state: ClusterState, view: ShardView, now_ms: int) -> ClusterState:
    """Return the state in which this life of a shard was told to end."""
    ending = replace(view, ending_ms=now_ms, ending_incarnation=view.incarnation)
    return replace(state, shards={**state.shards, view.shard_id: ending})
