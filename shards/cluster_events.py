"""What happens to a cluster (events) and what the controller wants done (actions). Frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass

from shards.changes import Change
from shards.cluster_state import BundleFacts
from shards.errors import HeadraceError
from shards.intent import Operation
from shards.placement import Placement
from shards.release import ModelVersion
from shards.replica import Replica


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSeen:
    """A shard answered."""

    shard_id: str
    address: str
    incarnation: str
    replicas: Mapping[ModelVersion, Replica]
    memory_bytes: int = 0
    pid: int = 0
    node_id: str = ""
    capacity_bytes: int = 0
    gpu_capacity_bytes: int = 0
    recycle_reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardSilent:
    """A shard did not answer; `refused` when nothing listens at its address."""

    shard_id: str
    refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeRequested:
    """An operator wants a change; `bundles` describes every bundle that it brings.

    `problem` is what is wrong with one of those bundles, where that was found out before anything began.
    """

    operation_id: str
    change: Change
    bundles: tuple[BundleFacts, ...] = ()
    problem: HeadraceError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """An operator no longer wants what a running operation does."""

    operation_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadDone:
    """A shard serves a bundle that it was asked to load."""

    shard_id: str
    replica: Replica


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFailed:
    """A shard does not serve a bundle that it was asked to load.

    `refused` when the shard looked at the bundle and will not serve it; otherwise the load broke off.
    """

    shard_id: str
    model: ModelVersion
    error: str
    refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class UnloadDone:
    """A shard has let a bundle go, or could not be asked."""

    shard_id: str
    model: ModelVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationHeard:
    """A router knows this generation, so every later one must be above it."""

    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementCommitted:
    """The store holds this placement now, by our commit or, after a conflict, by somebody else's."""

    placement: Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFailed:
    """The store could not be written; `error` says why."""

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStopped:
    """A shard that was to end has ended."""

    shard_id: str


ShardEvent = ShardSeen | ShardSilent | ShardStopped | LoadDone | LoadFailed | UnloadDone

Event = (
    Tick
    | ShardEvent
    | ChangeRequested
    | CancelRequested
    | GenerationHeard
    | PlacementCommitted
    | CommitFailed
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartShard:
    """See that the shard runs; `restart` replaces a process that does not answer."""

    shard_id: str
    restart: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartShard:
    """Let a shard that no router asks any more finish, then end its process and start another."""

    shard_id: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StopShard:
    """Let a shard that no router asks any more finish, then end it for good; ShardStopped follows."""

    shard_id: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadModel:
    """Ask a shard to load a bundle, or to hold it on other terms; LoadDone or LoadFailed follows.

    `memory_bytes` is what it was measured to use elsewhere, 0 where that is not known.
    """

    shard_id: str
    address: str
    model: ModelVersion
    on_demand: bool = False
    pinned: bool = False
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UnloadModel:
    """Ask a shard to let a bundle go; late requests go to `owner` (a shard id, or empty).

    UnloadDone follows.
    """

    shard_id: str
    address: str
    model: ModelVersion
    owner: str
    generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitPlacement:
    """Replace the expected generation by this placement; PlacementCommitted or CommitFailed follows."""

    expected_generation: int
    placement: Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishOperation:
    """Tell the operator how an operation ended."""

    operation: Operation


@dataclass(frozen=True, slots=True, kw_only=True)
class RefuseChange:
    """Tell the operator that a change was refused: it never was, or will be, under way."""

    operation_id: str
    error: HeadraceError


Action = (
    StartShard
    | RestartShard
    | StopShard
    | LoadModel
    | UnloadModel
    | CommitPlacement
    | FinishOperation
    | RefuseChange
)
