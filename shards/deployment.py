"""Deploys under way: how far they are, when they are complete and when there is no hope."""

from collections.abc import Iterator
from dataclasses import replace

from shards.changes import DeployRelease
from shards.cluster_events import FinishOperation
from shards.cluster_state import ClusterState
from shards.intent import Operation, OperationState
from shards.release import ModelVersion, Release


def running(state: ClusterState) -> list[Operation]:
    """Return the deploys under way, oldest first."""
    return [operation for operation in state.operations.values() if operation.running]


def release_of(operation: Operation) -> Release:
    """Return the release that a deploy brings."""
    assert isinstance(operation.change, DeployRelease)
    return operation.change.release


def complete(state: ClusterState, release: Release, now_ms: int) -> bool:
    """Return whether every bundle of the release is READY on every shard where it is planned."""
    return all(
        state.planned.get(model)
        and all(
            not state.lost(shard_id, now_ms) and state.shards[shard_id].ready(model)
            for shard_id in state.planned[model]
        )
        for model in release.models()
    )


def awaited(state: ClusterState, now_ms: int) -> list[str]:
    """Return the shards that have never answered and still may."""
    return [s for s, view in state.shards.items() if not view.incarnation and not state.lost(s, now_ms)]


def unplaceable(state: ClusterState) -> Iterator[tuple[Operation, ModelVersion]]:
    """Yield the running deploys with a bundle for which the plan has no shard at all."""
    for operation in running(state):
        for model in release_of(operation).models():
            if state.planned.get(model) == ():
                yield operation, model


def reason_to_end(state: ClusterState, operation: Operation, now_ms: int) -> tuple[OperationState, str]:
    """Return how a running deploy must end now and why; no reason means that it goes on."""
    newest = [o for o in running(state) if release_of(o).surface == release_of(operation).surface][-1]
    if newest.operation_id != operation.operation_id:
        return OperationState.CANCELLED, f"superseded by release {release_of(newest).version!r}"
    for (shard_id, model), failure in sorted(state.failures.items(), key=lambda item: item[0]):
        hopeless = failure.refused or failure.attempts >= state.settings.load_attempts
        if hopeless and model in release_of(operation).models():
            return OperationState.FAILED, f"{shard_id} cannot serve {model}: {failure.error}"
    timeout_ms = state.settings.deploy_timeout_ms
    if now_ms - operation.start_ms > timeout_ms:
        return OperationState.FAILED, f"not done after {timeout_ms // 1000} s: {operation.detail}"
    return OperationState.RUNNING, ""


def success(state: ClusterState, release: Release) -> str:
    """Return what there is to say of a release that has just gone live."""
    live = f"live since generation {state.placement.generation}"
    short = [
        f"; {m} has too few replicas: {state.unplaced[m]}" for m in release.models() if m in state.unplaced
    ]
    return live + "".join(short)


def report(state: ClusterState, now_ms: int) -> ClusterState:
    """Return the state with every running deploy telling how far it is."""
    told = {o.operation_id: _told(state, o, now_ms) for o in running(state)}
    return replace(state, operations={**state.operations, **told})


def _told(state: ClusterState, operation: Operation, now_ms: int) -> Operation:
    wanted = [(m, s) for m in release_of(operation).models() for s in state.planned.get(m, ())]
    missing = [(m, s) for m, s in wanted if not state.shards[s].ready(m)]
    detail = f"loading {missing[0][0]} on {missing[0][1]}" if missing else "waiting to go live"
    if shard_ids := awaited(state, now_ms):
        detail = f"waiting for {', '.join(shard_ids)}"
    return replace(operation, steps_total=len(wanted), steps_done=len(wanted) - len(missing), detail=detail)


def finish(
    state: ClusterState, operation: Operation, end: OperationState, detail: str, now_ms: int
) -> tuple[ClusterState, FinishOperation]:
    """End an operation; returns the new state and the action that tells the operator."""
    ended = replace(operation, state=end, detail=detail, end_ms=now_ms)
    operations = {**state.operations, operation.operation_id: ended}
    return replace(state, operations=operations), FinishOperation(operation=ended)
