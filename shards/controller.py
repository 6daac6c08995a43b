"""What the controller does next: `step(state, event, now_ms) -> (state, actions)`, pure.

Every step notes what the event tells, then compares what is with what shall be and asks for the
difference; nothing is remembered that can be seen again. What follows from that:

- A release answers from one commit on, made when every bundle that it pins is READY (goldens replayed) on
  every shard where the planner wants it. When a shard refuses one of them the deploy fails with the shard's
  reason, and the release that was live stays so.
- Moves are made before they are broken: a bundle's old shards stay in the placement until all of its
  planned ones are READY, and what left the placement is unloaded some seconds later.
- A shard that refuses connections leaves the placement after about a second and returns, each time as a
  new generation, once its bundles are READY again. The planner keeps its place for a minute, so that
  a restart moves nothing. A slow shard gets more time: routers avoid it by themselves.
- The last shard of a bundle never leaves the placement, not even a lost one: it may be the controller
  that is cut off, and routers lose nothing by trying. Shards that a restarted controller has not yet
  seen keep their place for the same reason.
- What operators ask for is an operation, committed with the placement and gone on with by whichever
  controller reads it. It counts while it runs; one that does not succeed leaves nothing to undo.
- Processes are ended only by what is committed, and only when no router has been told of them for a while.
- Generations only rise, as routers ignore older ones: after the loss of a snapshot they go on above
  the newest that a router has heard of.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from shards import operation_progress, rolling_restart
from shards.cluster_events import (
    Action,
    CommitPlacement,
    Event,
    FinishOperation,
    RefuseChange,
    RestartShard,
    ShardSeen,
    StartShard,
    StopShard,
)
from shards.cluster_state import ClusterState
from shards.observation import observe, with_shard, with_shards
from shards.operation_progress import next_generation
from shards.placement_table import placement_of
from shards.replica_changes import load, unload
from shards.shard_roster import desired_ids
from shards.shard_view import ShardView

_Step = tuple[ClusterState, tuple[Action, ...]]


def step(state: ClusterState, event: Event, now_ms: int) -> _Step:
    """Return the state after the event and what to do about it, in order; `now_ms` never goes back."""
    seen, before = state.shards, state.operations
    state = observe(state, event, now_ms)
    if _tells_nothing(state, event, seen, now_ms):
        return state, ()
    state = replace(state, decided_ms=now_ms)
    actions: list[Action] = []
    for phase in _PHASES:
        state, more = phase(state, now_ms)
        actions += more
    for operation_id, operation in state.operations.items():
        was = before.get(operation_id)
        if not operation.running and (was is None or was.running):
            actions.append(FinishOperation(operation=operation))
    return state, tuple(actions)


def _tells_nothing(state: ClusterState, event: Event, before: Mapping[str, ShardView], now_ms: int) -> bool:
    """Return whether an event is a look at a shard which is as before, and time has hardly passed.

    Deciding takes time for each bundle of the cluster, and there are as many looks as shards.
    """
    if not isinstance(event, ShardSeen) or state.decided_ms is None:
        return False
    if now_ms - state.decided_ms >= state.settings.decide_every_ms or event.shard_id not in before:
        return False
    return before[event.shard_id].same_but_use(state.shards[event.shard_id])


def _refuse(state: ClusterState, _: int) -> _Step:
    refusals = [RefuseChange(operation_id=name, error=error) for name, error in state.refusals.items()]
    return replace(state, refusals={}), tuple(refusals)


def _enlist(state: ClusterState, now_ms: int) -> _Step:
    """Look after every shard that there shall be, and restart one that asks for it."""
    state = rolling_restart.recycled(state, now_ms)
    return operation_progress.superseded(with_shards(state, (), now_ms), now_ms), ()


def _plan(state: ClusterState, now_ms: int) -> _Step:
    return operation_progress.replanned_with_room(state, now_ms), ()


def _start_shards(state: ClusterState, now_ms: int) -> _Step:
    """Start what was never started, and again what stays away: at first only if Ray has given it up."""
    actions: list[Action] = []
    wanted = desired_ids(state.configured, state.draft.intent)
    for view in state.shards.values():
        if view.shard_id not in wanted:
            continue
        if view.started_ms is None:
            if not _may_start(state, now_ms):
                continue
            actions.append(StartShard(shard_id=view.shard_id, restart=False))
        elif _overdue(state, view, now_ms):
            restart = not view.refused or _asked_again(view)
            actions.append(StartShard(shard_id=view.shard_id, restart=restart))
        else:
            continue
        state = with_shard(state, replace(view, started_ms=now_ms))
    return state, tuple(actions)


def _may_start(state: ClusterState, now_ms: int) -> bool:
    """Return whether one more shard may start now.

    A process that starts takes the processors of its node for seconds. Beside shards that serve, only a
    quarter as many start at once.
    """
    views = state.shards.values()
    serving = sum(bool(view.incarnation) and not state.lost(view.shard_id, now_ms) for view in views)
    patience_ms = state.settings.start_after_ms
    starting = sum(
        view.started_ms is not None and not view.incarnation and now_ms - view.started_ms <= patience_ms
        for view in views
    )
    return not serving or starting < max(1, serving // 4)


def _overdue(state: ClusterState, view: ShardView, now_ms: int) -> bool:
    if view.silent_since_ms is None or not state.lost(view.shard_id, now_ms):
        return False
    last_ms = max(view.started_ms or 0, view.silent_since_ms, view.ending_ms or 0)
    if not view.refused:
        # What has only just begun to listen may be too busy to answer; it does not hang.
        last_ms = max(last_ms, view.refused_ms)
    waits = view.refused and _asked_again(view)
    return now_ms - last_ms > (state.settings.missing_after_ms if waits else state.settings.restart_after_ms)


def _asked_again(view: ShardView) -> bool:
    """Return whether Ray was asked to start the shard since it fell silent, or to begin with."""
    return (view.started_ms or 0) >= (view.silent_since_ms or 0)


def _report(state: ClusterState, now_ms: int) -> _Step:
    return operation_progress.reported(state, now_ms), ()


def _complete(state: ClusterState, now_ms: int) -> _Step:
    return operation_progress.completed(state, now_ms), ()


def _commit(state: ClusterState, now_ms: int) -> _Step:
    """Commit the placement where it differs, or where a router has heard of a newer one."""
    if state.sent or now_ms < state.commit_after_ms:
        return state, ()
    wanted = placement_of(state, now_ms)
    generation = state.placement.generation
    if wanted == state.placement and generation >= state.heard_generation:
        return state, ()
    wanted = replace(wanted, generation=next_generation(state))
    commit = CommitPlacement(expected_generation=generation, placement=wanted)
    return replace(state, sent=wanted), (commit,)


def _end_shards(state: ClusterState, now_ms: int) -> _Step:
    """Restart and stop the shards that no router asks any more, by what is committed."""
    named = {s for assignment in state.placement.assignments.values() for s in assignment.shard_ids}
    idle_ms = {s: state.idle_ms.get(s, now_ms) for s in state.shards if s not in named}
    state = replace(state, idle_ms=idle_ms)
    actions: list[Action] = []
    for view in rolling_restart.due(state, now_ms):
        actions.append(RestartShard(shard_id=view.shard_id, address=view.address))
        state = rolling_restart.told_to_end(state, view, now_ms)
    for view in _leaving(state, now_ms):
        actions.append(StopShard(shard_id=view.shard_id, address=view.address))
        state = rolling_restart.told_to_end(state, view, now_ms)
    return state, tuple(actions)


def _leaving(state: ClusterState, now_ms: int) -> list[ShardView]:
    """Return the shards that shall not be, and that nothing depends on any more."""
    if state.draft.intent.frozen:
        return []
    wanted = {
        *desired_ids(state.configured, state.draft.intent),
        *desired_ids(state.configured, state.placement.intent),
    }
    return [
        view
        for view in state.shards.values()
        if view.shard_id not in wanted
        and (not view.replicas or state.lost(view.shard_id, now_ms))
        and all(busy != view.shard_id for busy, _ in state.loading | state.unloading)
        and rolling_restart.is_idle(state, view, now_ms)
        and not rolling_restart.is_ending(state, view, now_ms)
    ]


_PHASES: tuple[Callable[[ClusterState, int], _Step], ...] = (
    _enlist,
    _start_shards,
    _plan,
    load,
    _report,
    _complete,
    _refuse,
    _commit,
    unload,
    _end_shards,
)
