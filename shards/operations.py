"""The operations of a cluster: which run, how they start and how they end. The draft's intent holds them."""

from dataclasses import replace
from typing import TypeVar

from shards.cluster_state import ClusterState
from shards.errors import HeadraceError
from shards.intent import Intent, Operation, OperationState

Kind = TypeVar("Kind")

_ENDED_KEPT = 50


def running(state: ClusterState) -> list[Operation]:
    """Return the operations under way, oldest first."""
    return [operation for operation in state.draft.intent.operations if operation.running]


def running_changes(state: ClusterState, kind: type[Kind]) -> list[tuple[Operation, Kind]]:
    """Return the operations under way of one kind, oldest first, each with its change."""
    return [(o, o.change) for o in running(state) if isinstance(o.change, kind)]


def is_durable(state: ClusterState, operation: Operation) -> bool:
    """Return whether the operation runs by what is committed, so that others know of it."""
    return operation.running and operation in state.placement.intent.operations


def with_intent(state: ClusterState, intent: Intent) -> ClusterState:
    """Return the state with another intent in its draft."""
    return replace(state, draft=replace(state.draft, intent=intent))


def start(state: ClusterState, operation: Operation) -> ClusterState:
    """Return the state with one more operation under way."""
    return _with_operations(state, (*state.draft.intent.operations, operation))


def end(
    state: ClusterState, operation: Operation, outcome: OperationState, detail: str, now_ms: int
) -> ClusterState:
    """Return the state with an operation ended, which counts once it is committed."""
    progress = state.progress.get(operation.operation_id)
    total = progress.steps_total if progress else 0
    done = progress.steps_done if progress else 0
    ended = replace(
        operation,
        state=outcome,
        detail=detail,
        end_ms=now_ms,
        steps_total=total,
        steps_done=total if outcome is OperationState.SUCCEEDED else done,
    )
    operations = state.draft.intent.operations
    return _with_operations(
        state, tuple(ended if o.operation_id == ended.operation_id else o for o in operations)
    )


def refuse(state: ClusterState, operation: Operation, error: HeadraceError, now_ms: int) -> ClusterState:
    """Return the state with an operation that failed before it was committed."""
    failed = replace(operation, state=OperationState.FAILED, detail=str(error), end_ms=now_ms)
    return replace(
        state,
        refused=(*state.refused, failed)[-_ENDED_KEPT:],
        refusals={**state.refusals, operation.operation_id: error},
    )


def pending(state: ClusterState) -> list[Operation]:
    """Return the operations that no commit has held yet."""
    durable = {operation.operation_id for operation in state.placement.intent.operations}
    return [o for o in state.draft.intent.operations if o.operation_id not in durable]


def _with_operations(state: ClusterState, operations: tuple[Operation, ...]) -> ClusterState:
    """Keep what runs and the last that ended."""
    ended = [operation.operation_id for operation in operations if not operation.running]
    gone = set(ended[:-_ENDED_KEPT])
    kept = tuple(operation for operation in operations if operation.operation_id not in gone)
    return with_intent(state, replace(state.draft.intent, operations=kept))
