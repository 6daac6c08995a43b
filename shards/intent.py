"""What operators have asked for, kept with the placement: one compare-and-set commits both."""

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from shards.changes import (
    ApplyPlan,
    Change,
    DeployRelease,
    DrainShard,
    DropModel,
    FreezeCluster,
    HoldModel,
    ModelPolicy,
    RestartShards,
    RollbackRelease,
    ScaleShards,
    SetAlias,
    SetTraffic,
    UndrainShard,
)
from shards.release import ModelVersion

KINDS: Mapping[type[Change], str] = {
    DeployRelease: "deploy-release",
    RollbackRelease: "rollback-release",
    SetTraffic: "set-traffic",
    SetAlias: "set-alias",
    ApplyPlan: "apply-plan",
    DrainShard: "drain-shard",
    UndrainShard: "undrain-shard",
    ScaleShards: "scale-shards",
    RestartShards: "restart-shards",
    HoldModel: "hold-model",
    DropModel: "drop-model",
    FreezeCluster: "freeze-cluster",
}
"""What operations are called, by what they were asked to change."""


class OperationState(enum.Enum):
    """State of an operation."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """A change under way or ended; `detail` says what it is doing, or how it ended."""

    operation_id: str
    change: Change
    state: OperationState = OperationState.RUNNING
    steps_done: int = 0
    steps_total: int = 0
    detail: str = ""
    start_ms: int
    end_ms: int | None = None

    @property
    def kind(self) -> str:
        """Return what the operation is called."""
        return KINDS[type(self.change)]

    @property
    def running(self) -> bool:
        """Return whether it is still under way."""
        return self.state is OperationState.RUNNING


@dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """What shall be, over every restart of a controller."""

    shard_ids: tuple[str, ...] = ()
    """Shards that the cluster shall have; empty for those that it was started with."""
    gpu_fraction: float | None = None
    drained: tuple[str, ...] = ()
    """Shards that shall hold nothing."""
    frozen: bool = False
    policies: Mapping[ModelVersion, ModelPolicy] = field(default_factory=dict)
    operations: tuple[Operation, ...] = ()
    """Those under way and the last that ended, oldest first."""
