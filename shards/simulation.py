"""What a load would do to a placement: round by round through the planner, before anything is applied. Pure.

The load of a round meets the placement that was planned on the load before, as it would in a cluster;
then the planner answers it, and its moves are done when the next round begins.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from shards.planner import Assigned, Limits, Mode, ModelFacts, Plan, ShardFacts, plan
from shards.release import ModelVersion

Rates = Mapping[ModelVersion, float]
"""Requests per second for every bundle, over one round."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A cluster to simulate; without a placement it begins with what the planner makes of it."""

    shards: tuple[ShardFacts, ...]
    models: tuple[ModelFacts, ...]
    limits: Limits
    round_s: float = 60.0
    placement: Assigned = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.shards:
            raise ValueError("a simulation needs at least one shard")
        if self.round_s <= 0:
            raise ValueError("round_s must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardFigures:
    """What one shard has to do and hold in a round; bytes on demand count as if all were loaded."""

    shard_id: str
    load: float
    memory_bytes: int
    capacity_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFigures:
    """One round; `moves`, `moved_bytes`, `deferred` and `unplaced` are of the plan that answers it."""

    number: int
    shards: tuple[ShardFigures, ...]
    requests: float
    unanswered: float
    """Requests for bundles that have no replica."""
    moves: int
    """Replicas that arrive somewhere."""
    drops: int
    """Replicas that only go."""
    moved_bytes: int
    deferred: int
    unplaced: int

    @property
    def load_mean(self) -> float:
        """Return the requests per second of a shard on average."""
        return sum(s.load for s in self.shards) / len(self.shards)

    @property
    def load_max(self) -> float:
        """Return the requests per second of the busiest shard."""
        return max(s.load for s in self.shards)

    @property
    def memory_mean(self) -> float:
        """Return the share of all capacity that bundles take."""
        capacity_bytes = sum(s.capacity_bytes for s in self.shards)
        return sum(s.memory_bytes for s in self.shards) / capacity_bytes if capacity_bytes else 0.0

    @property
    def memory_max(self) -> float:
        """Return the share of its capacity that bundles take on the fullest shard."""
        return max(s.memory_bytes / s.capacity_bytes if s.capacity_bytes else 0.0 for s in self.shards)


def simulate(scenario: Scenario, rounds: Iterable[Rates]) -> Iterator[RoundFigures]:
    """Yield the figures of every round."""
    placement = scenario.placement or _planned(scenario, {}, {}, Mode.EMERGENCY).assignments
    for number, rates in enumerate(rounds):
        answer = _planned(scenario, rates, placement, Mode.PERIODIC)
        arrive = [move for move in answer.moves if move.to_shard]
        yield RoundFigures(
            number=number,
            shards=tuple(_shard_figures(scenario, rates, placement)),
            requests=sum(rates.values()) * scenario.round_s,
            unanswered=sum(rate for m, rate in rates.items() if not placement.get(m)) * scenario.round_s,
            moves=len(arrive),
            drops=len(answer.moves) - len(arrive),
            moved_bytes=sum(move.memory_bytes for move in arrive),
            deferred=answer.deferred,
            unplaced=sum(unplaced.missing for unplaced in answer.unplaced),
        )
        placement = answer.assignments


def _planned(scenario: Scenario, rates: Rates, placement: Assigned, mode: Mode) -> Plan:
    limits = replace(scenario.limits, mode=mode)
    return plan(0, scenario.shards, scenario.models, rates, placement, limits)


def _shard_figures(scenario: Scenario, rates: Rates, placement: Assigned) -> Iterator[ShardFigures]:
    load: dict[str, float] = defaultdict(float)
    memory_bytes: dict[str, int] = defaultdict(int)
    for facts in scenario.models:
        holders = placement.get(facts.model, ())
        for shard_id in holders:
            load[shard_id] += rates.get(facts.model, 0.0) / len(holders)
            memory_bytes[shard_id] += facts.memory_bytes
    for shard in sorted(scenario.shards, key=lambda s: s.shard_id):
        yield ShardFigures(
            shard_id=shard.shard_id,
            load=load[shard.shard_id],
            memory_bytes=memory_bytes[shard.shard_id],
            capacity_bytes=shard.capacity_bytes,
        )


def zipf_load(
    models: Sequence[ModelVersion], *, rounds: int, rate: float, exponent: float, drift: float, seed: int
) -> Iterator[Rates]:
    """Yield `rate` requests per second in all, shared by rank^-exponent over models in random order.

    After each round a share `drift` of the models change ranks with each other.
    """
    if not 0 <= drift <= 1:
        raise ValueError("drift must lie in [0, 1]")
    rng = np.random.default_rng(seed)
    weight = np.arange(1, len(models) + 1, dtype=np.float64) ** -exponent
    share = weight / weight.sum() * rate
    order = rng.permutation(len(models))
    for _ in range(rounds):
        yield {models[model]: float(share[rank]) for rank, model in enumerate(order)}
        chosen = np.flatnonzero(rng.random(len(models)) < drift)
        order[chosen] = order[rng.permutation(chosen)]


def recorded_load(rows: Iterable[tuple[float, ModelVersion, float]], *, round_s: float) -> Iterator[Rates]:
    """Yield the rates of rounds of `round_s` from rows of time in seconds, model and requests then.

    The first row's round is the first; rounds without requests are empty.
    """
    by_round: dict[int, dict[ModelVersion, float]] = defaultdict(lambda: defaultdict(float))
    for time_s, model, requests in rows:
        by_round[int(time_s // round_s)][model] += requests / round_s
    if by_round:
        for number in range(min(by_round), max(by_round) + 1):
            yield dict(by_round.get(number, {}))
