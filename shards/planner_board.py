"""The plan while it is made: who holds what, and the room that leaves. Shards and bundles are numbers here.

Numbers follow the order of the ids, so that the order of the facts does not matter, and what concerns all
shards is an array with one entry a shard, so that a thousand of them cost little more than one.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shards.planner_facts import Limits, ModelFacts, ShardFacts
from shards.release import ModelVersion

HOST, GPU, LOAD = range(3)
DIMENSIONS = ("memory", "GPU memory", "load")

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_CLOSED = 1 << 60
"""Bytes that a shard which may gain nothing is short of."""
_LOAD_UNITS = 1_000_000
"""Load is counted in millionths of a request per second: sums of integers do not depend on their order."""


@dataclass(frozen=True, slots=True)
class Need:
    """What one replica takes of a shard, or several that stay together; host and GPU bytes.

    `fixed` is always in memory. Of what is on demand only the biggest must fit, `shared`. `weight` is what
    counts for balance: all bytes, and the load.
    """

    fixed: tuple[int, int]
    shared: tuple[int, int]
    weight: tuple[int, int, int]


class Board:
    """Who holds what. Dropped, added and moved replicas keep their reasons."""

    def __init__(
        self,
        now_ms: int,
        shards: Sequence[ShardFacts],
        models: Sequence[ModelFacts],
        load: Mapping[ModelVersion, float],
        limits: Limits,
    ) -> None:
        self.shards = sorted(
            (s for s in shards if s.lost_since_ms is None or now_ms - s.lost_since_ms <= limits.grace_ms),
            key=lambda s: s.shard_id,
        )
        self.models = sorted(models, key=lambda m: (m.model.model, m.model.version))
        self.shard_number = {s.shard_id: i for i, s in enumerate(self.shards)}
        self.model_number = {m.model: i for i, m in enumerate(self.models)}
        self.holders: list[set[int]] = [set() for _ in self.models]
        self.held: list[set[int]] = [set() for _ in self.shards]
        self.dropped: dict[tuple[int, int], str] = {}
        self.added: dict[tuple[int, int], tuple[int | None, str]] = {}
        """Replica to the shard that it comes from and the reason."""

        self.load = [load.get(m.model, 0.0) for m in self.models]
        self.needs = [_need(m, rate, limits) for m, rate in zip(self.models, self.load, strict=True)]
        self._place_shards(limits)
        self._used = np.zeros((2, len(self.shards)), np.int64)
        self._room = np.where(self.gains, self.limit, -_CLOSED)
        self._used_optional = np.zeros_like(self._used)
        self._shared = np.zeros_like(self._used)
        self._shared_required = np.zeros_like(self._used)
        self.weight = np.zeros((3, len(self.shards)), np.int64)
        self._mates: dict[str, Counter[int]] = defaultdict(Counter)
        self._group: dict[str, Ints] = defaultdict(lambda: np.zeros(len(self.shards), np.int64))
        self._group_nodes: dict[str, Ints] = defaultdict(lambda: np.zeros(len(self.on_node), np.int64))

    def _place_shards(self, limits: Limits) -> None:
        nodes = sorted({s.node for s in self.shards})
        numbers = {node: i for i, node in enumerate(nodes)}
        self.node_of = np.array([numbers[s.node] for s in self.shards], np.int64)
        self.on_node = [np.flatnonzero(self.node_of == node) for node in range(len(nodes))]
        self.drained = [i for i, s in enumerate(self.shards) if s.drained]
        self.gains: Mask = np.array(
            [s.lost_since_ms is None and not s.drained for s in self.shards], np.bool_
        )
        self.capacity = np.array(
            [[s.capacity_bytes for s in self.shards], [s.gpu_capacity_bytes for s in self.shards]], np.int64
        )
        self.limit = np.floor(self.capacity * (1 - limits.headroom)).astype(np.int64)

    def put(self, model: int, shard: int) -> None:
        """Let the shard hold the bundle."""
        self.holders[model].add(shard)
        self.held[shard].add(model)
        self._count(model, shard, 1)

    def take(self, model: int, shard: int) -> None:
        """Let the shard hold the bundle no longer."""
        self.holders[model].remove(shard)
        self.held[shard].remove(model)
        self._count(model, shard, -1)

    def drop(self, model: int, shard: int, reason: str) -> None:
        """Take the bundle from the shard for a reason."""
        self.take(model, shard)
        self.dropped[model, shard] = reason
        self.added.pop((model, shard), None)

    def add(self, model: int, shard: int, reason: str, source: int | None = None) -> None:
        """Give the bundle to the shard for a reason, and take it from `source` if there is one."""
        if source is not None:
            self.drop(model, source, reason)
        self.put(model, shard)
        self.added[model, shard] = (source, reason)

    def _count(self, model: int, shard: int, sign: int) -> None:
        facts, need = self.models[model], self.needs[model]
        for dimension, amount in enumerate(need.weight):
            if amount:
                self.weight[dimension, shard] += sign * amount
        for dimension, amount in enumerate(need.fixed):
            if amount:
                self._used[dimension, shard] += sign * amount
                self._room[dimension, shard] -= sign * amount
                if facts.optional:
                    self._used_optional[dimension, shard] += sign * amount
        if facts.on_demand:
            self._share(shard)
        for release in facts.releases:
            self._mates[release][shard] += sign
        if facts.group:
            self._group[facts.group][shard] += sign
            self._group_nodes[facts.group][self.node_of[shard]] += sign

    def _share(self, shard: int) -> None:
        """Note the biggest bundles on demand that the shard holds."""
        on_demand = [m for m in self.held[shard] if self.models[m].on_demand]
        required = [m for m in on_demand if not self.models[m].optional]
        for dimension in (HOST, GPU):
            sizes = (self.needs[m].shared[dimension] for m in on_demand)
            biggest = max(sizes, default=0)
            self._room[dimension, shard] -= biggest - int(self._shared[dimension, shard])
            self._shared[dimension, shard] = biggest
            sizes = (self.needs[m].shared[dimension] for m in required)
            self._shared_required[dimension, shard] = max(sizes, default=0)

    def need(self, models: Iterable[int]) -> Need:
        """Return what several replicas take of one shard."""
        needs = [self.needs[m] for m in models]
        if len(needs) == 1:
            return needs[0]
        return Need(
            (sum(n.fixed[HOST] for n in needs), sum(n.fixed[GPU] for n in needs)),
            (max(n.shared[HOST] for n in needs), max(n.shared[GPU] for n in needs)),
            (
                sum(n.weight[HOST] for n in needs),
                sum(n.weight[GPU] for n in needs),
                sum(n.weight[LOAD] for n in needs),
            ),
        )

    def stays(self, model: int, shard: int) -> bool:
        """Return whether the shard's whole capacity has room for one more replica of the bundle."""
        need = self.needs[model]
        return all(
            self._used[d, shard] + need.fixed[d] + max(int(self._shared[d, shard]), need.shared[d])
            <= self.capacity[d, shard]
            for d in _used_dimensions(need)
        )

    def fits(self, need: Need, *, without_optional: bool = False) -> Mask:
        """Return which shards may be given this much; `without_optional` as if they held nothing optional."""
        mask: Mask = self.room(need, HOST, without_optional=without_optional) >= need.fixed[HOST]
        if GPU in _used_dimensions(need):
            mask &= self.room(need, GPU, without_optional=without_optional) >= need.fixed[GPU]
        return mask

    def room(self, need: Need, dimension: int, *, without_optional: bool = False) -> Ints:
        """Return the bytes left on every shard, below its head-room and beside what it shares on demand.

        There is less than none on shards that may gain nothing.
        """
        room: Ints = self._room[dimension]
        if without_optional:
            room = room + self._used_optional[dimension]
            room += self._shared[dimension] - self._shared_required[dimension]
        if need.shared[dimension]:
            shared = (self._shared_required if without_optional else self._shared)[dimension]
            room = room - np.maximum(need.shared[dimension] - shared, 0)
        return room

    def same_node(self, model: int, leaving: int | None = None) -> Ints:
        """Return how many replicas of the bundle each shard's node holds, but for the one that leaves."""
        counts = np.zeros(len(self.shards), np.int64)
        for shard in self.holders[model]:
            if shard != leaving:
                counts[self.on_node[self.node_of[shard]]] += 1
        return counts

    def same_group(self, model: int, leaving: int | None = None) -> Ints:
        """Return how crowded each shard and its node are with the bundle's group."""
        group = self.models[model].group
        if not group:
            return np.zeros(len(self.shards), np.int64)
        counts = self._group[group] + self._group_nodes[group][self.node_of]
        if leaving is not None:
            counts[self.on_node[self.node_of[leaving]]] -= 1
            counts[leaving] -= 1
        return counts

    def mates(self, model: int) -> Iterator[tuple[int, int]]:
        """Yield shards that hold bundles of the bundle's releases, and how many, for each release."""
        for release in self.models[model].releases:
            yield from self._mates[release].items()

    def scale(self, weight: Sequence[int]) -> Floats:
        """Return what turns weights into shares of the mean where all of them sum to `weight`."""
        capacity = np.vstack([self.capacity, np.ones((1, len(self.shards)), np.int64)]).astype(np.float64)
        total = (capacity * self.gains).sum(axis=1)
        scale = np.zeros(capacity.shape)
        for d in (HOST, GPU, LOAD):
            if weight[d]:
                np.divide(total[d] / weight[d], capacity[d], out=scale[d], where=capacity[d] > 0)
        return scale

    def name(self, shard: int) -> str:
        """Return a shard's id."""
        return self.shards[shard].shard_id


def _used_dimensions(need: Need) -> tuple[int, ...]:
    """Return those to check: a bundle that needs no GPU may go where there is none, or where it is full."""
    return (HOST, GPU) if need.fixed[GPU] or need.shared[GPU] else (HOST,)


def _need(facts: ModelFacts, load: float, limits: Limits) -> Need:
    least, most = limits.bounds(facts)
    wanted = min(most, max(least, limits.replicas_for(load)))
    size = (facts.memory_bytes, facts.gpu_memory_bytes)
    weight = (*size, int(load * _LOAD_UNITS) // wanted)
    return Need((0, 0), size, weight) if facts.on_demand else Need(size, (0, 0), weight)
