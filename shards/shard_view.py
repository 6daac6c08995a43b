"""One shard, as the controller last saw it."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from shards.release import ModelVersion
from shards.replica import Replica, ReplicaState


class ShardState(enum.Enum):
    """State of a shard, as the controller sees it."""

    STARTING = "starting"
    SERVING = "serving"
    DOWN = "down"
    DRAINING = "draining"
    DRAINED = "drained"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardView:
    """One shard as it was last seen; an empty `incarnation` means never.

    `silent_since_ms` is None while it answers; `refused` tells that nothing listens at its address, so that
    it is gone rather than slow, and `refused_ms` when that was last found. `started_ms` is when Ray was last
    asked to start it, and `ending_ms` when it was last asked to end the life `ending_incarnation`.
    `recycle_reason` is why its process asks to be restarted.
    """

    shard_id: str
    address: str = ""
    incarnation: str = ""
    pid: int = 0
    memory_bytes: int = 0
    node_id: str = ""
    capacity_bytes: int = 0
    gpu_capacity_bytes: int = 0
    recycle_reason: str = ""
    replicas: Mapping[ModelVersion, Replica] = field(default_factory=dict)
    silent_since_ms: int | None = None
    refused: bool = False
    refused_ms: int = 0
    started_ms: int | None = None
    ending_ms: int | None = None
    ending_incarnation: str = ""

    @property
    def node(self) -> str:
        """Return the Ray node it runs on, or else the host of its address."""
        return self.node_id or self.address.rpartition(":")[0]

    def same_but_use(self, other: "ShardView") -> bool:
        """Return whether two looks differ at most in the process's memory and in requests answered."""
        if replace(self, replicas={}, memory_bytes=0) != replace(other, replicas={}, memory_bytes=0):
            return False
        return self.replicas.keys() == other.replicas.keys() and all(
            replica.same_but_use(other.replicas[model]) for model, replica in self.replicas.items()
        )

    def ready(self, model: ModelVersion) -> bool:
        """Return whether the shard was last seen to answer for the bundle, loading it first if it is cold."""
        replica = self.replicas.get(model)
        return replica is not None and replica.state in {ReplicaState.READY, ReplicaState.COLD}
