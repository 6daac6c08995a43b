"""How far each running operation is, what it waits for, and whether there is any hope for it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from shards import recall_gate, releases, rolling_restart
from shards.changes import (
    ApplyPlan,
    DeployRelease,
    DrainShard,
    DropModel,
    HoldModel,
    RestartShards,
    RollbackRelease,
    ScaleShards,
    SetTraffic,
)
from shards.cluster_state import ClusterState, Held, LoadTerms
from shards.intent import Operation
from shards.planner import PlannedMove
from shards.planning import awaited, settled
from shards.release import ModelVersion
from shards.replica import ReplicaState
from shards.shard_roster import desired_ids


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """Steps done and to be done; `detail` says what it waits for.

    `hopeless` says why it cannot succeed, and `no_room` why not with the shards that answer now.
    """

    done: int
    total: int
    detail: str
    complete: bool
    hopeless: str = ""
    no_room: str = ""


def outlook(state: ClusterState, operation: Operation, now_ms: int) -> Outlook:
    """Return how far a running operation is."""
    change = operation.change
    match change:
        case DeployRelease() | RollbackRelease() | SetTraffic():
            release = releases.brought(state.draft, change)
            if release is None:
                return _given_up("the release is gone")
            found = _bundles(state, tuple(release.models()), now_ms)
            poor = recall_gate.problem(state, change, release)
            return replace(found, hopeless=found.hopeless or poor, complete=found.complete and not poor)
        case HoldModel():
            return _hold(state, change, now_ms)
        case DropModel():
            return _drop(state, change)
        case DrainShard():
            progress = state.progress.get(operation.operation_id)
            return _empty(state, change.shard_id, now_ms, progress.steps_total if progress else 0)
        case ScaleShards():
            return _scale(state, now_ms)
        case RestartShards():
            return _restart(state, change, now_ms)
        case ApplyPlan():
            return _apply(state, change, now_ms)
        case _:
            return Outlook(done=1, total=1, detail="", complete=True)


def _given_up(reason: str) -> Outlook:
    return Outlook(done=0, total=0, detail="", complete=False, hopeless=reason)


def _bundles(state: ClusterState, models: tuple[ModelVersion, ...], now_ms: int) -> Outlook:
    """Bundles that must answer wherever they are planned."""
    wanted = [(shard_id, model) for model in models for shard_id in state.planned.get(model, ())]
    missing = [held for held in wanted if not state.serves(*held, now_ms)]
    detail = _first(missing, "loading {1} on {0}") or "waiting to go live"
    if shard_ids := awaited(state, now_ms):
        detail = f"waiting for {', '.join(shard_ids)}"
    return Outlook(
        done=len(wanted) - len(missing),
        total=len(wanted),
        detail=detail,
        complete=releases.complete(state, models, now_ms),
        hopeless=_unloadable(state, lambda held: held[1] in models),
        no_room=_unplaced(state, models),
    )


def _hold(state: ClusterState, change: HoldModel, now_ms: int) -> Outlook:
    model = change.policy.model
    if model not in state.planned and not change.policy.standalone:
        return Outlook(done=0, total=0, detail="", complete=not awaited(state, now_ms))
    found = _bundles(state, (model,), now_ms)
    terms = LoadTerms(on_demand=model in state.on_demand, pinned=change.policy.pinned)
    other = [s for s in state.planned.get(model, ()) if not _held_so(state, (s, model), terms)]
    if other and found.complete:
        detail = f"{'telling' if terms.on_demand else 'loading it on'} {other[0]}"
        return Outlook(done=0, total=found.total, detail=detail, complete=False)
    return found


def _held_so(state: ClusterState, held: Held, terms: LoadTerms) -> bool:
    """Return whether a shard holds a bundle on these terms; what is still cold is not loaded for good."""
    shard_id, model = held
    replica = state.shards[shard_id].replicas.get(model)
    cold = replica is not None and replica.state is ReplicaState.COLD
    return state.told.get(held, LoadTerms()) == terms and (terms.on_demand or not cold)


def _drop(state: ClusterState, change: DropModel) -> Outlook:
    holders = [s for s, view in sorted(state.shards.items()) if change.model in view.replicas]
    if change.model in state.planned:
        return Outlook(done=1, total=1, detail="", complete=True)
    detail = f"unloading it from {', '.join(holders)}"
    return Outlook(done=0, total=len(holders), detail=detail, complete=not holders)


def _empty(state: ClusterState, shard_id: str, now_ms: int, seen: int = 0) -> Outlook:
    """A shard that everything must leave; what it holds is only let go once it answers elsewhere."""
    assigned = [m for m, a in state.placement.assignments.items() if shard_id in a.shard_ids]
    view = state.shards.get(shard_id)
    gone = view is None or state.lost(shard_id, now_ms)
    held = [] if gone or view is None else [m for m in view.replicas if m not in assigned]
    left = len(assigned) + len(held)
    detail = f"{left} bundles are left on {shard_id}"
    if assigned:
        targets = [s for s in state.planned.get(assigned[0], ()) if not state.serves(s, assigned[0], now_ms)]
        detail += f"; next {assigned[0]}" + (f", loading on {targets[0]}" if targets else "")
    return Outlook(
        done=max(0, seen - left),
        total=max(seen, left),
        detail=detail,
        complete=not left and not any(shard_id in ids for ids in state.planned.values()),
        hopeless=_unloadable(state, lambda held: held[1] in assigned and held[0] != shard_id),
        no_room=_stuck(state, shard_id, assigned),
    )


def _stuck(state: ClusterState, shard_id: str, assigned: list[ModelVersion]) -> str:
    """Return why a shard cannot be emptied: a bundle has no other place."""
    for model in assigned:
        if model in state.unplaced and shard_id in state.planned.get(model, ()):
            return f"{shard_id} cannot be emptied: {model}: {state.unplaced[model]}"
    return ""


def _scale(state: ClusterState, now_ms: int) -> Outlook:
    wanted = desired_ids(state.configured, state.draft.intent)
    leaving = sorted(state.shards.keys() - set(wanted))
    joined = [s for s in wanted if s in state.shards and state.shards[s].incarnation]
    done, total = len(joined), len(wanted) + len(leaving)
    if len(joined) < len(wanted):
        missing = ", ".join(s for s in wanted if s not in joined)
        return Outlook(done=done, total=total, detail=f"waiting for {missing}", complete=False)
    if leaving:
        found = [_empty(state, shard_id, now_ms) for shard_id in leaving]
        left = next((o.detail for o in found if not o.complete), f"stopping {', '.join(leaving)}")
        return Outlook(
            done=done,
            total=total,
            detail=left,
            complete=False,
            hopeless=next((o.hopeless for o in found if o.hopeless), ""),
            no_room=next((o.no_room for o in found if o.no_room), ""),
        )
    calm = settled(state, now_ms) and not state.deferred
    return Outlook(done=done, total=total, detail="moving bundles to new shards", complete=calm)


def _restart(state: ClusterState, change: RestartShards, now_ms: int) -> Outlook:
    total = len(change.shard_ids)
    shard_id = rolling_restart.turn(state, change, now_ms)
    if shard_id is None:
        return Outlook(done=total, total=total, detail="", complete=True)
    alone = rolling_restart.sole(state, shard_id, now_ms)
    homeless = [m for m in alone if m in state.unplaced and set(state.planned.get(m, ())) <= {shard_id}]
    no_room = ""
    if homeless:
        reason = state.unplaced[homeless[0]]
        no_room = f"{shard_id} cannot be restarted without losing {homeless[0]}: {reason}"
    if state.shards[shard_id].incarnation != change.incarnations.get(shard_id):
        detail = f"waiting until {shard_id} serves again"
    elif alone:
        detail = f"{alone[0]} must answer elsewhere before {shard_id} is restarted"
    else:
        detail = f"restarting {shard_id}"
    done = sum(rolling_restart.renewed(state, change, s, now_ms) for s in change.shard_ids)
    return Outlook(done=done, total=total, detail=detail, complete=False, no_room=no_room)


def _apply(state: ClusterState, change: ApplyPlan, now_ms: int) -> Outlook:
    left = [move for move in change.moves if not _is_made(state, move, now_ms)]
    astray = next((m for m in left if m.to_shard and m.to_shard not in state.planned.get(m.model, ())), None)
    hopeless = f"{astray.model} cannot go to {astray.to_shard} any more" if astray else ""
    targets = {(move.to_shard, move.model) for move in left}
    return Outlook(
        done=len(change.moves) - len(left),
        total=len(change.moves),
        detail=f"moving {left[0].model} from {left[0].from_shard} to {left[0].to_shard}" if left else "",
        complete=not left,
        hopeless=hopeless or _unloadable(state, targets.__contains__),
    )


def _is_made(state: ClusterState, move: PlannedMove, now_ms: int) -> bool:
    assignment = state.placement.assignments.get(move.model)
    holders = assignment.shard_ids if assignment else ()
    come = not move.to_shard or (move.to_shard in holders and state.serves(move.to_shard, move.model, now_ms))
    return come and move.from_shard not in holders


def _unplaced(state: ClusterState, models: tuple[ModelVersion, ...]) -> str:
    """Return which of the bundles no shard at all can hold, and why."""
    for model in models:
        if state.planned.get(model) == () and model in state.unplaced:
            return f"no shard can hold {model}: {state.unplaced[model]}"
    return ""


def _unloadable(state: ClusterState, concerns: Callable[[Held], bool]) -> str:
    """Return which shard will not serve a bundle that it is to hold, and why."""
    for held, failure in sorted(state.failures.items(), key=lambda item: item[0]):
        final = failure.refused or failure.attempts >= state.settings.load_attempts
        if final and concerns(held):
            return f"{held[0]} cannot serve {held[1]}: {failure.error}"
    return ""


def _first(held: list[Held], words: str) -> str:
    return words.format(*held[0]) if held else ""
