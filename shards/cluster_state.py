"""What the controller knows: shards, bundles, the placement and the operations under way. Frozen values."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from shards.errors import HeadraceError
from shards.intent import Operation, OperationState
from shards.placement import Placement
from shards.planner import Assigned, Limits
from shards.release import ModelVersion, Stage
from shards.replica import ReplicaState
from shards.shard_roster import emptied_ids
from shards.shard_view import ShardState, ShardView

_RUNNING = OperationState.RUNNING

Held = tuple[str, ModelVersion]
"""A bundle on a shard: shard id and bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFacts:
    """What the controller knows of a bundle from its manifest."""

    model: ModelVersion
    stage: Stage
    engine: str = ""
    size_bytes: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadFailure:
    """Loads of a bundle on a shard that failed in a row; not tried again before `retry_ms`.

    `refused` when the shard looked at the bundle and will not serve it; otherwise the load broke off.
    """

    attempts: int
    retry_ms: int
    error: str
    refused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ControllerSettings:
    """Patience and room of the controller; times in milliseconds."""

    limits: Limits
    shard_capacity_bytes: int
    lost_after_ms: int = 1_000
    """A shard that refuses connections leaves the placement after this time."""
    slow_after_ms: int = 10_000
    """So does one that accepts them but does not answer."""
    start_after_ms: int = 60_000
    """So does one never seen; until then a deploy waits for it."""
    restart_after_ms: int = 30_000
    """Silence after which Ray is asked to restart a shard that hangs, which it believes alive."""
    missing_after_ms: int = 120_000
    """So is one that Ray was asked to start so long ago, and at whose address nothing listens.

    Ray starts again by itself what dies, which takes long where processors are short, and longer when it is
    made to begin anew.
    """
    unload_after_ms: int = 5_000
    """What left the placement stays loaded this long, for requests in flight and routers that lag."""
    deploy_timeout_ms: int = 600_000
    """An operation that gets no further for so long is given up."""
    load_attempts: int = 3
    """Loads that break off in a row, say because the shard dies of them, before a deploy is given up."""
    commit_retry_ms: int = 1_000
    """A store that cannot be written is tried again after this time."""
    rebalance_every_ms: int = 300_000
    """A calm cluster is balanced this often; 0 for never."""
    decide_every_ms: int = 250
    """Looks at shards that tell nothing new are decided on no more often, however many shards there are."""
    min_recall: float = 0.0
    """A release whose replicas find a smaller share of what an exact search finds does not go live."""
    recall_searches: int = 200
    """So many live searches at least tell a replica's recall; before that its goldens do."""

    def __post_init__(self) -> None:
        if self.shard_capacity_bytes <= 0:
            raise ValueError("shard_capacity_bytes must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far a running operation is; `since_ms` is when it last got further."""

    steps_done: int
    steps_total: int
    detail: str
    since_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadTerms:
    """How a shard is told to hold a bundle."""

    on_demand: bool = False
    pinned: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSample:
    """Requests that each bundle on a shard had answered at a moment, in one life of the shard."""

    at_ms: int
    incarnation: str
    requests: Mapping[ModelVersion, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """All that the controller decides on; `placement` is the committed one.

    `draft` is what the next commit shall hold of releases, traffic, aliases and intent; where each bundle is
    follows from the shards. Whatever is in the draft alone is lost with this controller.
    """

    settings: ControllerSettings
    configured: tuple[str, ...]
    """Shards that the cluster was started with."""
    shards: Mapping[str, ShardView]
    placement: Placement
    draft: Placement
    planned: Assigned
    """Where every bundle shall be; what the planner or an operator said last."""
    unplaced: Mapping[ModelVersion, str] = field(default_factory=dict)
    """Bundles with too few replicas, and why."""
    deferred: int = 0
    """Moves that wait for a later round of the planner."""
    planned_on: object = None
    """What the last plan was made from; the same facts are not planned on twice."""
    rebalanced_ms: int = 0
    decided_ms: int | None = None
    """When it was last asked what is to be done."""
    bundles: Mapping[ModelVersion, BundleFacts] = field(default_factory=dict)
    measured_bytes: Mapping[ModelVersion, int] = field(default_factory=dict)
    measured_gpu_bytes: Mapping[ModelVersion, int] = field(default_factory=dict)
    on_demand: frozenset[ModelVersion] = frozenset()
    """Bundles that are loaded when first asked for."""
    samples: Mapping[str, tuple[LoadSample, ...]] = field(default_factory=dict)
    """Shard id to counters of the last seconds."""
    loads: Mapping[ModelVersion, float] = field(default_factory=dict)
    """Requests per second of each bundle, steadied."""
    refused: tuple[Operation, ...] = ()
    """What was asked for and never committed, oldest first."""
    refusals: Mapping[str, HeadraceError] = field(default_factory=dict)
    """Operation id to why it was refused in this step."""
    progress: Mapping[str, Progress] = field(default_factory=dict)
    loading: frozenset[Held] = frozenset()
    """Asked for and not yet answered."""
    unloading: frozenset[Held] = frozenset()
    """Told to go and not yet gone; whatever the shard says, it does not count."""
    told: Mapping[Held, LoadTerms] = field(default_factory=dict)
    failures: Mapping[Held, LoadFailure] = field(default_factory=dict)
    retired_ms: Mapping[Held, int] = field(default_factory=dict)
    """Loaded but unused, and since when."""
    idle_ms: Mapping[str, int] = field(default_factory=dict)
    """Shards that no router is told to ask, and since when."""
    sent: Placement | None = None
    """The placement that is being committed."""
    commit_after_ms: int = 0
    heard_generation: int = 0
    """Newest generation that a router knows; above the committed one only when a snapshot was lost."""

    @property
    def operations(self) -> Mapping[str, Operation]:
        """Return every operation as it may be told: its end counts once it is committed. Oldest first."""
        known = {operation.operation_id: operation for operation in self.refused}
        for operation in self.draft.intent.operations:
            known[operation.operation_id] = replace(operation, state=_RUNNING, detail="", end_ms=None)
        known |= {o.operation_id: o for o in self.placement.intent.operations}
        told = (self._with_progress(operation) for operation in known.values())
        # Sorting is stable: what began within one millisecond stays in the order in which it came.
        return {o.operation_id: o for o in sorted(told, key=lambda o: o.start_ms)}

    def _with_progress(self, operation: Operation) -> Operation:
        progress = self.progress.get(operation.operation_id)
        if not operation.running or not progress:
            return operation
        done, total = progress.steps_done, progress.steps_total
        return replace(operation, steps_done=done, steps_total=total, detail=progress.detail)

    def capacity_bytes(self, shard_id: str) -> int:
        """Return the memory that bundles may use on a known shard."""
        return self.shards[shard_id].capacity_bytes or self.settings.shard_capacity_bytes

    def lost(self, shard_id: str, now_ms: int) -> bool:
        """Return whether the shard has been silent for so long that its replicas do not count."""
        view = self.shards.get(shard_id)
        if view is None:
            return True
        if view.silent_since_ms is None:
            return False
        settings = self.settings
        patience_ms = settings.lost_after_ms if view.refused else settings.slow_after_ms
        if not view.incarnation:
            patience_ms = settings.start_after_ms
        return now_ms - view.silent_since_ms > patience_ms

    def serves(self, shard_id: str, model: ModelVersion, now_ms: int) -> bool:
        """Return whether routers may ask a shard for a bundle; one held on demand may be loading."""
        if self.lost(shard_id, now_ms):
            return False
        view = self.shards[shard_id]
        replica = view.replicas.get(model)
        if replica and replica.state is ReplicaState.LOADING and model in self.on_demand:
            assignment = self.placement.assignments.get(model)
            return bool(assignment and shard_id in assignment.shard_ids)
        return view.ready(model)

    def shard_state(self, shard_id: str, now_ms: int) -> ShardState:
        """Return the state of a known shard; STARTING until it serves all that is planned on it."""
        view = self.shards[shard_id]
        if self.lost(shard_id, now_ms):
            return ShardState.DOWN
        must_hold = [model for model, holders in self.planned.items() if shard_id in holders]
        if shard_id in emptied_ids(self.configured, self.draft.intent, self.shards):
            empty = not must_hold and not view.replicas
            return ShardState.DRAINED if empty else ShardState.DRAINING
        whole = view.incarnation and all(view.ready(model) for model in must_hold)
        return ShardState.SERVING if whole else ShardState.STARTING
