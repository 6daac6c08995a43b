"""What operators have asked for: operations and the rest of the intent."""

from collections.abc import Mapping

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec.changes import change_to_proto, policy_to_proto, read_change, read_policy
from services.codec.moments import read_timestamp, timestamp_to_proto
from services.codec.violations import Field
from shards.changes import FreezeCluster
from shards.intent import Intent, Operation, OperationState

_STATES: Mapping[OperationState, pb.OperationState.ValueType] = {
    OperationState.RUNNING: pb.OPERATION_STATE_RUNNING,
    OperationState.SUCCEEDED: pb.OPERATION_STATE_SUCCEEDED,
    OperationState.FAILED: pb.OPERATION_STATE_FAILED,
    OperationState.CANCELLED: pb.OPERATION_STATE_CANCELLED,
}

_STATE_FROM_PROTO = {number: state for state, number in _STATES.items()}


def operation_to_proto(operation: Operation) -> pb.Operation:
    """Return the message of an operation."""
    return pb.Operation(
        operation_id=operation.operation_id,
        kind=operation.kind,
        state=_STATES[operation.state],
        steps_done=operation.steps_done,
        steps_total=operation.steps_total,
        detail=operation.detail,
        start_time=timestamp_to_proto(operation.start_ms),
        end_time=None if operation.end_ms is None else timestamp_to_proto(operation.end_ms),
        **change_to_proto(operation.change),
    )


def intent_to_proto(intent: Intent) -> pb.Intent:
    """Return the message of an intent."""
    return pb.Intent(
        shard_ids=intent.shard_ids,
        gpu_fraction=intent.gpu_fraction,
        drained=intent.drained,
        frozen=intent.frozen,
        policies=[policy_to_proto(policy) for policy in intent.policies.values()],
        operations=[operation_to_proto(operation) for operation in intent.operations],
    )


def read_intent(message: pb.Intent, field: Field) -> Intent:
    """Return the intent; refuses an operation without its change."""
    policies = [
        read_policy(policy, field.child("policies").element(i)) for i, policy in enumerate(message.policies)
    ]
    operations = field.child("operations")
    return Intent(
        shard_ids=tuple(message.shard_ids),
        gpu_fraction=message.gpu_fraction if message.HasField("gpu_fraction") else None,
        drained=tuple(message.drained),
        frozen=message.frozen,
        policies={policy.model: policy for policy in policies},
        operations=tuple(
            _read_operation(operation, operations.element(i))
            for i, operation in enumerate(message.operations)
        ),
    )


def _read_operation(message: pb.Operation, field: Field) -> Operation:
    state = _STATE_FROM_PROTO.get(message.state)
    field.child("state").check(state is not None, "must name a state")
    name = message.WhichOneof("change")
    if field.child("change").check(name is not None, "must be set") and name is not None:
        change = read_change(getattr(message, name), field.child(name))
    else:
        change = FreezeCluster(frozen=False)
    ended = message.end_time if message.HasField("end_time") else None
    return Operation(
        operation_id=message.operation_id,
        change=change,
        state=state or OperationState.FAILED,
        steps_done=message.steps_done,
        steps_total=message.steps_total,
        detail=message.detail,
        start_ms=read_timestamp(message.start_time, field.child("start_time")),
        end_ms=None if ended is None else read_timestamp(ended, field.child("end_time")),
    )
