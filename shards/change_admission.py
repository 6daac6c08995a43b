"""Whether a change may start: it must make sense as the cluster is now, and contradict nothing that runs."""

from dataclasses import replace

from shards import recall_gate, release_admission, releases, shard_admission
from shards.changes import (
    ApplyPlan,
    Change,
    DeployRelease,
    DrainShard,
    DropModel,
    FreezeCluster,
    HoldModel,
    RestartShards,
    RollbackRelease,
    SetAlias,
    SetTraffic,
    UndrainShard,
)
from shards.cluster_state import ClusterState
from shards.errors import HeadraceError, NotFound, Refused
from shards.intent import Operation, OperationState
from shards.operation_progress import ended, succeeded
from shards.operations import end, pending, refuse, running, running_changes, start
from shards.planning import moved
from shards.release import ModelVersion


def requested(state: ClusterState, operation: Operation, now_ms: int) -> ClusterState:
    """Return the state with a change under way, done at once, or refused with the reason."""
    try:
        return _admitted(state, operation, now_ms)
    except HeadraceError as error:
        return refuse(state, operation, error, now_ms)


def cancelled(state: ClusterState, operation_id: str, now_ms: int) -> ClusterState:
    """Return the state with an operation ended, if it runs; whatever it wanted is wanted no longer."""
    for operation in running(state):
        if operation.operation_id == operation_id:
            return ended(state, operation, OperationState.CANCELLED, "cancelled by an operator", now_ms)
    return state


def withdrawn(state: ClusterState, error: HeadraceError, now_ms: int) -> ClusterState:
    """Return the state as it was committed; what was asked for since then has failed."""
    waiting = pending(state)
    state = _without_draft(state)
    for operation in waiting:
        state = refuse(state, _anew(operation), error, now_ms)
    return state


def readmitted(state: ClusterState, waiting: list[Operation], now_ms: int) -> ClusterState:
    """Return the state with what nobody has committed yet asked for again, on what is committed now."""
    known = {operation.operation_id for operation in state.placement.intent.operations}
    for operation in waiting:
        if operation.operation_id not in known:
            state = requested(state, _anew(operation), now_ms)
    return state


def _without_draft(state: ClusterState) -> ClusterState:
    return replace(state, draft=state.placement, planned_on=None)


def _anew(operation: Operation) -> Operation:
    return replace(
        operation, state=OperationState.RUNNING, detail="", end_ms=None, steps_done=0, steps_total=0
    )


def _admitted(state: ClusterState, operation: Operation, now_ms: int) -> ClusterState:
    """Raise what refuses the change; else start its operation and, where nothing must be awaited, end it."""
    change = operation.change
    _check_frozen(state, change, now_ms)
    _check(state, change)
    state, operation = _prepared(state, operation, now_ms)
    if isinstance(change, SetTraffic) and release_admission.is_share(state, change):
        return _done(release_admission.with_share(state, change), operation, now_ms)
    state = start(_as_new(state, change), operation)
    return succeeded(state, operation, now_ms) if _is_instant(state, change, now_ms) else state


def _check(state: ClusterState, change: Change) -> None:
    """Raise what is wrong with a change."""
    if isinstance(change, RollbackRelease | SetTraffic | SetAlias | DeployRelease):
        release_admission.check(state, change)
    elif isinstance(change, DropModel):
        _check_drop(state, change)
    else:
        shard_admission.check(state, change)


def _prepared(state: ClusterState, operation: Operation, now_ms: int) -> tuple[ClusterState, Operation]:
    """Return what the operation starts from, and the operation with what it has to know of that."""
    change = operation.change
    match change:
        case UndrainShard():
            state = _superseding(state, DrainShard, change.shard_id, now_ms)
        case RestartShards():
            operation = replace(operation, change=shard_admission.restart_of(state, change))
        case ApplyPlan():
            state = replace(state, planned={**state.planned, **moved(state.planned, change)}, planned_on=None)
        case HoldModel():
            state = _superseding(state, HoldModel, change.policy.model, now_ms)
        case DropModel():
            state = _superseding(state, HoldModel, change.model, now_ms)
        case _:
            pass
    return state, operation


def _done(state: ClusterState, operation: Operation, now_ms: int) -> ClusterState:
    assert isinstance(operation.change, SetTraffic)
    detail = f"{operation.change.percent:g} %" if operation.change.percent else "ended"
    return end(start(state, operation), operation, OperationState.SUCCEEDED, detail, now_ms)


def _check_frozen(state: ClusterState, change: Change, now_ms: int) -> None:
    """Refuse what a frozen cluster does not do: it is unfrozen, and flips to what is loaded."""
    if not state.draft.intent.frozen or isinstance(change, FreezeCluster | SetAlias):
        return
    if isinstance(change, RollbackRelease | SetTraffic) and (
        release_admission.is_share(state, change) or _is_instant(state, change, now_ms)
    ):
        return
    raise Refused("the cluster is frozen; unfreeze it first", reason="CLUSTER_FROZEN")


def _is_instant(state: ClusterState, change: Change, now_ms: int) -> bool:
    """Return whether a change is done by the commit that starts it."""
    if isinstance(change, RollbackRelease | SetTraffic):
        release = releases.brought(state.draft, change)
        return (
            release is not None
            and releases.answers(state, release, now_ms)
            and not recall_gate.problem(state, change, release)
        )
    return isinstance(change, SetAlias | UndrainShard | FreezeCluster)


def _check_drop(state: ClusterState, change: DropModel) -> None:
    if change.model in releases.policies(state):
        return
    for release, _ in releases.loaded(state.draft):
        if change.model in release.models():
            raise Refused(f"{release.name} pins {change.model}", reason="MODEL_PINNED")
    raise NotFound("model", str(change.model))


def _superseding(state: ClusterState, kind: type[Change], subject: object, now_ms: int) -> ClusterState:
    """End the running operation of this kind and subject, which an operator has thought better of."""
    for operation, change in running_changes(state, kind):
        same = change.policy.model if isinstance(change, HoldModel) else getattr(change, "shard_id", None)
        if same == subject:
            state = ended(state, operation, OperationState.CANCELLED, "superseded by a newer change", now_ms)
    return state


def _as_new(state: ClusterState, change: Change) -> ClusterState:
    """Forget refusals of the bundles that a change brings: whoever asks may have repaired them.

    So do the shards: they are told again how to hold them.
    """
    models: set[ModelVersion] = set()
    if isinstance(change, releases.ReleaseChange):
        release = releases.brought(state.draft, change)
        models = set(release.models()) if release else set()
    elif isinstance(change, HoldModel):
        models = {change.policy.model}
    elif isinstance(change, ApplyPlan):
        models = {move.model for move in change.moves}
    return replace(
        state,
        failures={held: f for held, f in state.failures.items() if held[1] not in models},
        told={held: terms for held, terms in state.told.items() if held[1] not in models},
    )
