"""What the planner is told and what it answers: frozen values."""

import enum
import math
from collections.abc import Mapping
from dataclasses import dataclass

from shards.release import ModelVersion

Assigned = Mapping[ModelVersion, tuple[str, ...]]
"""Bundle to ids of the shards that hold it, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """A shard as the planner sees it; `lost_since_ms` is None while it answers.

    A lost shard gains nothing; what it holds stays planned there until `Limits.grace_ms` have passed,
    because a restarted shard comes back with its bundles. A drained one gains nothing and is emptied.
    """

    shard_id: str
    node: str
    capacity_bytes: int
    gpu_capacity_bytes: int = 0
    lost_since_ms: int | None = None
    drained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A bundle that must be held somewhere; `releases` names those that pin it and want it on one shard.

    `min_replicas` and `max_replicas` override the limits. Bundles of one `group` are partitions of one
    catalogue and avoid each other. An `optional` one is only good for a rollback: placed last, dropped first.
    One `on_demand` has one replica unless its load or `min_replicas` asks for more, and shares its memory
    with the others on demand on its shard.
    """

    model: ModelVersion
    memory_bytes: int
    gpu_memory_bytes: int = 0
    releases: frozenset[str] = frozenset()
    min_replicas: int | None = None
    max_replicas: int | None = None
    group: str = ""
    optional: bool = False
    on_demand: bool = False


class Mode(enum.Enum):
    """How much a plan may change."""

    EMERGENCY = "emergency"
    """Repair only: missing replicas, shards that are gone or drained, bundles that nobody wants."""
    PERIODIC = "periodic"
    """Also follow the load, spread replicas over nodes and balance the shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Churn:
    """How much may move in one round; None does not limit it."""

    moves: int | None = None
    size_bytes: int | None = None

    def __post_init__(self) -> None:
        if min(self.moves or 0, self.size_bytes or 0) < 0:
            raise ValueError("a churn budget must not be below 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a plan must respect.

    Every bundle gets between `min_replicas` and `max_replicas`, one more for every `load_per_replica`
    requests per second begun. Nothing is added to a shard beyond 1 - `headroom` of its capacity; what it
    holds already may use all of it.
    """

    min_replicas: int = 2
    max_replicas: int = 2
    headroom: float = 0.1
    load_per_replica: float = math.inf
    grace_ms: int = 60_000
    mode: Mode = Mode.EMERGENCY
    churn: Churn = Churn()
    """Budget of a round. A replica that arrives is a move; one that only goes costs nothing."""
    churn_per_shard: Churn = Churn()
    """Budget of each shard for what it takes and gives away."""
    churn_per_node: Churn = Churn()
    shrink_below: float = 0.8
    """A replica goes when those left would be loaded below this share of `load_per_replica`."""
    imbalance_trigger: float = 0.2
    """A shard is relieved once its memory or load is this share of the mean above the mean,"""
    imbalance_goal: float = 0.1
    """until it is this share above, or there is nothing left that helps,"""
    imbalance_gain: float = 0.05
    """and only if that takes this share of the mean off it in all."""
    quiet_load: float = 1.0
    """Requests per second and shard below which load is not worth a move."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ValueError("replicas must satisfy 1 <= min_replicas <= max_replicas")
        if not 0 <= self.headroom < 1:
            raise ValueError("headroom must lie in [0, 1)")
        if self.load_per_replica <= 0:
            raise ValueError("load_per_replica must be above 0")
        if not 0 < self.shrink_below <= 1:
            raise ValueError("shrink_below must lie in (0, 1]")
        if not 0 <= self.imbalance_goal <= self.imbalance_trigger:
            raise ValueError("imbalances must satisfy 0 <= imbalance_goal <= imbalance_trigger")

    def replicas(self, load: float) -> int:
        """Return how many replicas a bundle with this load (requests per second) gets by default."""
        return min(self.max_replicas, max(self.min_replicas, self.replicas_for(load)))

    def replicas_for(self, load: float) -> int:
        """Return how many replicas this load (requests per second) alone asks for."""
        return math.ceil(load / self.load_per_replica)

    def bounds(self, model: ModelFacts) -> tuple[int, int]:
        """Return the fewest and most replicas of a bundle; its own figures beat the defaults."""
        least = model.min_replicas or (1 if model.on_demand else self.min_replicas)
        most = model.max_replicas or max(least, self.max_replicas)
        return min(least, most), most


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedMove:
    """One replica that goes, comes or does both; an empty shard id means that it only comes or goes."""

    model: ModelVersion
    from_shard: str
    to_shard: str
    memory_bytes: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unplaced:
    """Replicas of a bundle that are not where they should be, and why: no shard can hold them."""

    model: ModelVersion
    missing: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where every bundle shall be, what changes to get there, and what cannot be done.

    `deferred` counts the replicas whose move waits for a later round, as the churn budget is used up.
    """

    assignments: Assigned
    moves: tuple[PlannedMove, ...] = ()
    unplaced: tuple[Unplaced, ...] = ()
    deferred: int = 0
