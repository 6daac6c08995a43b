"""What operators ask of a cluster: frozen values, each of which becomes an operation."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from shards.planner import PlannedMove
from shards.release import ModelVersion, Release, ReleaseRole
from shards.release_quality import ReleaseQuality


@dataclass(frozen=True, slots=True, kw_only=True)
class DeployRelease:
    """Load a release everywhere, then let it answer: all of its surface, or a share in percent."""

    release: Release
    role: ReleaseRole = ReleaseRole.LIVE
    percent: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RollbackRelease:
    """Flip a surface back to the release before."""

    surface: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTraffic:
    """Set the share of a loaded canary or shadow in percent; 0 ends it, 100 promotes a canary."""

    surface: str
    version: str
    percent: float
    quality: ReleaseQuality | None = None
    """How a canary that is promoted compared with the live release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SetAlias:
    """Let an alias stand for a surface or for `surface@release`; an empty target removes it."""

    alias: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplyPlan:
    """Carry out the moves of a plan that was made on this generation."""

    generation: int
    moves: tuple[PlannedMove, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainShard:
    """Move everything off a shard and keep it empty."""

    shard_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UndrainShard:
    """Let a drained shard hold models again."""

    shard_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleShards:
    """Set the number of shards and, unless None, the share of a GPU that each gets."""

    shards: int
    gpu_fraction: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartShards:
    """Restart shards one after the other; `incarnations` holds the life of each that is to end."""

    shard_ids: tuple[str, ...]
    incarnations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelPolicy:
    """How one bundle is held; None replicas mean the cluster's default.

    A `pinned` bundle is loaded and never evicted, one `on_demand` is loaded when first asked for as long as
    it is not pinned, and a `standalone` one is held even if no release pins it.
    """

    model: ModelVersion
    min_replicas: int | None = None
    max_replicas: int | None = None
    pinned: bool = False
    on_demand: bool = False
    standalone: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldModel:
    """Hold a bundle in this way."""

    policy: ModelPolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class DropModel:
    """Hold a bundle no longer on its own account."""

    model: ModelVersion


@dataclass(frozen=True, slots=True, kw_only=True)
class FreezeCluster:
    """Stop, or let go on, what the controller does by itself."""

    frozen: bool


Change = (
    DeployRelease
    | RollbackRelease
    | SetTraffic
    | SetAlias
    | ApplyPlan
    | DrainShard
    | UndrainShard
    | ScaleShards
    | RestartShards
    | HoldModel
    | DropModel
    | FreezeCluster
)
