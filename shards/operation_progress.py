"""Operations going on: each step tells how far they are, ends those without hope and completes those done."""

from dataclasses import replace
from typing import assert_never

from shards import releases
from shards.changes import (
    ApplyPlan,
    DeployRelease,
    DrainShard,
    DropModel,
    FreezeCluster,
    HoldModel,
    RestartShards,
    RollbackRelease,
    ScaleShards,
    SetAlias,
    SetTraffic,
    UndrainShard,
)
from shards.cluster_state import ClusterState, Progress
from shards.intent import Intent, Operation, OperationState
from shards.operation_outlook import Outlook, outlook
from shards.operations import end, running
from shards.planning import replanned
from shards.release import ModelVersion, Release
from shards.shard_roster import desired_ids, with_scale

IntendedChange = HoldModel | DropModel | DrainShard | UndrainShard | ScaleShards | FreezeCluster
"""What becomes part of the intent when it is done."""


def superseded(state: ClusterState, now_ms: int) -> ClusterState:
    """End every deploy for which a newer one of the same surface and role was started."""
    newest: dict[object, Operation] = {}
    for operation in running(state):
        if not isinstance(operation.change, DeployRelease):
            continue
        key = (operation.change.release.surface, operation.change.role)
        if older := newest.get(key):
            detail = f"superseded by release {operation.change.release.version!r}"
            state = end(state, older, OperationState.CANCELLED, detail, now_ms)
        newest[key] = operation
    return state


def replanned_with_room(state: ClusterState, now_ms: int) -> ClusterState:
    """Plan; an operation that cannot succeed by this plan fails, and it is planned again without it."""
    while True:
        state = replanned(state, now_ms)
        hopeless = next(((o, why) for o in running(state) if (why := _reason_to_end(state, o, now_ms))), None)
        if hopeless is None:
            return state
        state = ended(state, hopeless[0], OperationState.FAILED, hopeless[1], now_ms)


def _reason_to_end(state: ClusterState, operation: Operation, now_ms: int) -> str:
    if state.draft.intent.frozen:
        return ""
    found = outlook(state, operation, now_ms)
    if found.hopeless or (found.no_room and not _may_return(state, now_ms)):
        return found.hopeless or found.no_room
    progress = state.progress.get(operation.operation_id)
    timeout_ms = state.settings.deploy_timeout_ms
    if progress and now_ms - progress.since_ms > timeout_ms:
        return f"no progress for {timeout_ms // 1000} s: {progress.detail}"
    return ""


def _may_return(state: ClusterState, now_ms: int) -> bool:
    """Return whether a shard is away that may soon be back, and then have room."""
    wanted = desired_ids(state.configured, state.draft.intent)
    silent = (state.shards[s].silent_since_ms for s in wanted if s in state.shards)
    return any(s is not None and now_ms - s <= state.settings.start_after_ms for s in silent)


def ended(
    state: ClusterState, operation: Operation, outcome: OperationState, detail: str, now_ms: int
) -> ClusterState:
    """End an operation without success; what it wanted counts no longer, and moves not made are not made."""
    state = end(state, operation, outcome, detail, now_ms)
    if isinstance(operation.change, ApplyPlan):
        back = {
            move.model: assignment.shard_ids
            for move in operation.change.moves
            if (assignment := state.placement.assignments.get(move.model))
        }
        state = replace(state, planned={**state.planned, **back})
    # A plan that counted on the operation is made anew.
    return replace(state, planned_on=None)


def reported(state: ClusterState, now_ms: int) -> ClusterState:
    """Return the state with every running operation telling how far it is."""
    told = {}
    for operation in running(state):
        found = outlook(state, operation, now_ms)
        told[operation.operation_id] = _progress(state, operation, found, now_ms)
    return replace(state, progress=told)


def _progress(state: ClusterState, operation: Operation, found: Outlook, now_ms: int) -> Progress:
    before = state.progress.get(operation.operation_id)
    still = before and found.done <= before.steps_done and not state.draft.intent.frozen
    return Progress(
        steps_done=found.done,
        steps_total=found.total,
        detail="the cluster is frozen" if state.draft.intent.frozen else found.detail,
        since_ms=before.since_ms if before and still else now_ms,
    )


def completed(state: ClusterState, now_ms: int) -> ClusterState:
    """Bring into the draft what running operations have made ready, and end them."""
    if state.draft.intent.frozen:
        return state
    for operation in running(state):
        if outlook(state, operation, now_ms).complete:
            state = succeeded(state, operation, now_ms)
    return state


def succeeded(state: ClusterState, operation: Operation, now_ms: int) -> ClusterState:
    """Return the state with an operation done, and what it wanted part of the draft."""
    change, draft = operation.change, state.draft
    detail = ""
    match change:
        case DeployRelease() | RollbackRelease() | SetTraffic():
            detail = _success(state, change)
            draft = releases.flipped(draft, change)
        case SetAlias():
            aliases = {alias: target for alias, target in draft.aliases.items() if alias != change.alias}
            draft = replace(draft, aliases=aliases | ({change.alias: change.target} if change.target else {}))
            detail = f"stands for {change.target}" if change.target else "removed"
        case RestartShards():
            detail = f"restarted {', '.join(change.shard_ids)}"
        case ApplyPlan():
            detail = f"made {len(change.moves)} moves"
        case _:
            intent, detail = _intended(state, change)
            draft = replace(draft, intent=intent)
    return end(replace(state, draft=draft), operation, OperationState.SUCCEEDED, detail, now_ms)


def _intended(state: ClusterState, change: IntendedChange) -> tuple[Intent, str]:
    """Return the intent of which a change is now part, and what to tell of it."""
    intent = state.draft.intent
    match change:
        case HoldModel(policy=policy):
            policies = {**intent.policies, policy.model: policy}
            return replace(intent, policies=policies), _short(state, policy.model) or "held"
        case DropModel(model=model):
            policies = {name: policy for name, policy in intent.policies.items() if name != model}
            detail = "a release still pins it" if model in state.planned else "let go"
            return replace(intent, policies=policies), detail
        case DrainShard(shard_id=shard_id):
            return replace(intent, drained=(*intent.drained, shard_id)), f"{shard_id} is empty"
        case UndrainShard():
            drained = tuple(shard_id for shard_id in intent.drained if shard_id != change.shard_id)
            return replace(intent, drained=drained), f"{change.shard_id} may hold bundles again"
        case ScaleShards():
            return with_scale(state.configured, intent, change), f"{change.shards} shards"
        case FreezeCluster(frozen=frozen):
            return replace(intent, frozen=frozen), "frozen" if frozen else "goes on"
    assert_never(change)


def next_generation(state: ClusterState) -> int:
    """Return the generation that the next commit will have."""
    sent = state.sent.generation if state.sent else 0
    return max(state.placement.generation, state.heard_generation, sent) + 1


def _success(state: ClusterState, change: releases.ReleaseChange) -> str:
    """Return what there is to say of a release that answers from now on."""
    release = releases.brought(state.draft, change)
    assert release
    role = "live"
    if isinstance(change, DeployRelease):
        role = change.role.value
    return f"{role} since generation {next_generation(state)}" + _shortages(state, release)


def _shortages(state: ClusterState, release: Release) -> str:
    return "".join(f"; {short}" for model in release.models() if (short := _short(state, model)))


def _short(state: ClusterState, model: ModelVersion) -> str:
    reason = state.unplaced.get(model)
    return f"{model} has too few replicas: {reason}" if reason else ""
