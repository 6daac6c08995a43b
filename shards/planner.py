"""Which shard holds which bundle: a stateless, deterministic function of what is known.

The plan is made in named phases: keep what is fine, drop what is gone or too much, fill up replicas on the
shards with most room, validate. A second call with the first one's answer as `previous` changes nothing.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest

from shards.release import ModelVersion

Assigned = Mapping[ModelVersion, tuple[str, ...]]
"""Bundle to ids of the shards that hold it, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFacts:
    """A shard as the planner sees it; `lost_since_ms` is None while it answers.

    A lost shard gains nothing; what it holds stays planned there until `Limits.grace_ms` have passed,
    because a restarted shard comes back with its bundles.
    """

    shard_id: str
    node: str
    capacity_bytes: int
    gpu_capacity_bytes: int = 0
    lost_since_ms: int | None = None
    drained: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFacts:
    """A bundle that must be held somewhere; `releases` names those that pin it and want it on one shard."""

    model: ModelVersion
    memory_bytes: int
    gpu_memory_bytes: int = 0
    releases: frozenset[str] = frozenset()
    min_replicas: int | None = None
    max_replicas: int | None = None
    group: str = ""
    optional: bool = False
    on_demand: bool = False


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

    def __post_init__(self) -> None:
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ValueError("replicas must satisfy 1 <= min_replicas <= max_replicas")
        if not 0 <= self.headroom < 1:
            raise ValueError("headroom must lie in [0, 1)")
        if self.load_per_replica <= 0:
            raise ValueError("load_per_replica must be above 0")

    def replicas(self, load: float) -> int:
        """Return how many replicas a bundle with this load (requests per second) gets."""
        return min(self.max_replicas, max(self.min_replicas, math.ceil(load / self.load_per_replica)))


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
    """Replicas of a bundle that no shard can hold, and why."""

    model: ModelVersion
    missing: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Where every bundle shall be, what changes to get there, and what cannot be done."""

    assignments: Assigned
    moves: tuple[PlannedMove, ...] = ()
    unplaced: tuple[Unplaced, ...] = ()


def plan(
    now_ms: int,
    shards: Sequence[ShardFacts],
    models: Sequence[ModelFacts],
    load: Mapping[ModelVersion, float],
    previous: Assigned,
    limits: Limits,
) -> Plan:
    """Return the placement nearest to `previous` within `limits`; `load` is in requests per second."""
    wanted = {m.model: limits.replicas(load.get(m.model, 0.0)) for m in models}
    board = _Board(now_ms, shards, models, limits)
    dropped = _keep(board, previous) | _trim(board, limits)
    unplaced = tuple(_fill(board, wanted))
    assignments = {model: tuple(sorted(holders)) for model, holders in sorted(board.holders.items())}
    _validate(board, assignments, limits)
    moves = tuple(_moves(board, previous, assignments, dropped))
    return Plan(assignments=assignments, moves=moves, unplaced=unplaced)


class _Board:
    """The plan while it is made: who holds what, and the room that leaves."""

    def __init__(
        self, now_ms: int, shards: Sequence[ShardFacts], models: Sequence[ModelFacts], limits: Limits
    ) -> None:
        self.shards = {
            s.shard_id: s
            for s in sorted(shards, key=lambda s: s.shard_id)
            if s.lost_since_ms is None or now_ms - s.lost_since_ms <= limits.grace_ms
        }
        self.models = {m.model: m for m in models}
        self.headroom = limits.headroom
        self.holders: dict[ModelVersion, set[str]] = {model: set() for model in self.models}
        self.used_bytes: Counter[str] = Counter()
        self._mates: dict[str, Counter[str]] = {shard_id: Counter() for shard_id in self.shards}

    def put(self, model: ModelVersion, shard_id: str) -> None:
        self.holders[model].add(shard_id)
        self.used_bytes[shard_id] += self.models[model].memory_bytes
        self._mates[shard_id].update(self.models[model].releases)

    def take(self, model: ModelVersion, shard_id: str) -> None:
        self.holders[model].remove(shard_id)
        self.used_bytes[shard_id] -= self.models[model].memory_bytes
        self._mates[shard_id].subtract(self.models[model].releases)

    def room_bytes(self, shard_id: str, headroom: float = 0.0) -> float:
        return self.shards[shard_id].capacity_bytes * (1 - headroom) - self.used_bytes[shard_id]

    def mates(self, model: ModelVersion, shard_id: str) -> int:
        """Return how many bundles of the model's releases the shard holds."""
        return sum(self._mates[shard_id][release] for release in self.models[model].releases)

    def nodes(self, model: ModelVersion) -> Counter[str]:
        return Counter(self.shards[shard_id].node for shard_id in self.holders[model])


_Dropped = dict[tuple[ModelVersion, str], str]
"""Bundle and shard that lets it go, to the reason."""


def _keep(board: _Board, previous: Assigned) -> _Dropped:
    """Keep every replica whose bundle is wanted, whose shard is there and whose memory fits.

    Bundles with fewest replicas come first, so that memory that runs short costs second copies.
    """
    dropped: _Dropped = {}
    order = sorted(previous, key=lambda model: (len(board.shards.keys() & set(previous[model])), model))
    for model in order:
        for shard_id in sorted(set(previous[model])):
            if model not in board.models:
                dropped[model, shard_id] = "no release uses it"
            elif shard_id not in board.shards:
                dropped[model, shard_id] = "the shard is gone"
            elif board.room_bytes(shard_id) < board.models[model].memory_bytes:
                dropped[model, shard_id] = "the shard has too little memory"
            else:
                board.put(model, shard_id)
    return dropped


def _trim(board: _Board, limits: Limits) -> _Dropped:
    """Drop replicas beyond the most allowed: first those that share a node, then from the fullest shard."""
    dropped: _Dropped = {}
    for model, holders in sorted(board.holders.items()):
        while len(holders) > limits.max_replicas:
            nodes = board.nodes(model)
            worst = min(holders, key=lambda s: (-nodes[board.shards[s].node], board.room_bytes(s), s))
            board.take(model, worst)
            dropped[model, worst] = "more replicas than the most allowed"
    return dropped


def _fill(board: _Board, wanted: Mapping[ModelVersion, int]) -> Iterator[Unplaced]:
    """Add missing replicas, the biggest bundles first; yield those that fit nowhere."""
    for model in sorted(wanted, key=lambda model: (-board.models[model].memory_bytes, model)):
        while len(board.holders[model]) < wanted[model]:
            shard_id = _best_shard(board, model)
            if shard_id is None:
                missing = wanted[model] - len(board.holders[model])
                yield Unplaced(model=model, missing=missing, reason=_why_unplaced(board, model))
                break
            board.put(model, shard_id)


def _best_shard(board: _Board, model: ModelVersion) -> str | None:
    """Return the shard for one more replica: on a new node, beside its release's stages, with most room."""
    size_bytes, nodes = board.models[model].memory_bytes, board.nodes(model)
    return min(
        (s for s in _free_shards(board, model) if board.room_bytes(s, board.headroom) >= size_bytes),
        key=lambda s: (nodes[board.shards[s].node], -board.mates(model, s), -board.room_bytes(s), s),
        default=None,
    )


def _free_shards(board: _Board, model: ModelVersion) -> list[str]:
    """Return the shards that answer and do not hold the model."""
    answering = (shard.shard_id for shard in board.shards.values() if shard.lost_since_ms is None)
    return [shard_id for shard_id in answering if shard_id not in board.holders[model]]


def _why_unplaced(board: _Board, model: ModelVersion) -> str:
    free = _free_shards(board, model)
    if not free:
        answering = sum(shard.lost_since_ms is None for shard in board.shards.values())
        return f"of the shards that answer ({answering}) none is left for it"
    room_bytes = max(board.room_bytes(shard_id, board.headroom) for shard_id in free)
    size_bytes = board.models[model].memory_bytes
    return f"it needs {size_bytes:,} bytes and the most room on a shard is {max(0, int(room_bytes)):,}"


def _validate(board: _Board, assignments: Assigned, limits: Limits) -> None:
    """Assert what every plan promises, whatever the phases did."""
    for model, holders in assignments.items():
        assert len(set(holders)) == len(holders) <= limits.max_replicas, f"{model} has replicas {holders}"
    for shard_id in board.shards:
        held = (m for m, holders in assignments.items() if shard_id in holders)
        used_bytes = sum(board.models[model].memory_bytes for model in held)
        assert used_bytes <= board.shards[shard_id].capacity_bytes, f"{shard_id} holds {used_bytes} bytes"


def _moves(
    board: _Board, previous: Assigned, assignments: Assigned, dropped: _Dropped
) -> Iterator[PlannedMove]:
    """Pair the replicas that go with those that come, bundle by bundle."""
    for model in sorted(previous.keys() | assignments.keys()):
        before, after = set(previous.get(model, ())), set(assignments.get(model, ()))
        gone, come = sorted(before - after), sorted(after - before)
        for from_shard, to_shard in zip_longest(gone, come, fillvalue=""):
            facts = board.models.get(model)
            yield PlannedMove(
                model=model,
                from_shard=from_shard,
                to_shard=to_shard,
                memory_bytes=facts.memory_bytes if facts else 0,
                reason=dropped[model, from_shard] if from_shard else "it has too few replicas",
            )
