"""Replicas: one bundle on one shard, as the shard reports it."""

from collections.abc import Mapping

from protos.headrace.v1 import shard_service_pb2 as pb
from services.codec.live_quality import live_quality_to_proto, read_live_quality
from services.codec.moments import duration_from_proto, duration_to_proto
from services.codec.stages import STAGE_TO_PROTO, model_version_to_proto, read_model_version, read_stage
from services.codec.violations import Field, collecting
from shards.live_quality import UNKNOWN, LiveQuality
from shards.replica import Replica, ReplicaState

REPLICA_STATE_TO_PROTO: Mapping[ReplicaState, pb.ReplicaState.ValueType] = {
    ReplicaState.LOADING: pb.REPLICA_STATE_LOADING,
    ReplicaState.READY: pb.REPLICA_STATE_READY,
    ReplicaState.FAILED: pb.REPLICA_STATE_FAILED,
    ReplicaState.COLD: pb.REPLICA_STATE_COLD,
}
"""The wire's number of each state."""

_STATE_FROM_PROTO = {number: state for state, number in REPLICA_STATE_TO_PROTO.items()}


def replica_to_proto(replica: Replica) -> pb.Replica:
    """Return the message of a replica."""
    return pb.Replica(
        model=model_version_to_proto(replica.model),
        stage=STAGE_TO_PROTO[replica.stage],
        state=REPLICA_STATE_TO_PROTO[replica.state],
        memory_bytes=replica.memory_bytes,
        error=replica.error,
        load_time=duration_to_proto(replica.load_time_ms / 1000),
        gpu_memory_bytes=replica.gpu_memory_bytes,
        requests=replica.requests,
        loads=replica.loads,
        evictions=replica.evictions,
        quality=None if replica.quality == UNKNOWN else live_quality_to_proto(replica.quality),
    )


def replica_from_proto(message: pb.Replica) -> Replica:
    """Return the replica; raises `InvalidInput` with every field at fault, below "replica"."""
    with collecting("replica") as field:
        state = _STATE_FROM_PROTO.get(message.state, ReplicaState.FAILED)
        field.child("state").check(message.state in _STATE_FROM_PROTO, "must name a state")
        return Replica(
            model=read_model_version(message.model, field.child("model")),
            stage=read_stage(message.stage, field.child("stage")),
            state=state,
            memory_bytes=message.memory_bytes,
            error=message.error,
            load_time_ms=round(duration_from_proto(message.load_time) * 1000),
            gpu_memory_bytes=message.gpu_memory_bytes,
            requests=message.requests,
            loads=message.loads,
            evictions=message.evictions,
            quality=_quality(message, field),
        )


def _quality(message: pb.Replica, field: Field) -> LiveQuality:
    return (
        read_live_quality(message.quality, field.child("quality")) if message.HasField("quality") else UNKNOWN
    )
