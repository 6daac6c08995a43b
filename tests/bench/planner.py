"""How fast the planner plans a big cluster, and how little it moves: part of `make bench-shards`."""

import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from shards.planner import Assigned, Limits, Mode, ModelFacts, Plan, ShardFacts, plan
from shards.release import ModelVersion
from tests.bench.result import Check, at_least, at_most, publish

SHARDS, NODES, REPLICAS, LOST = 1_000, 250, 100_000, 5
STAGES = 5
"""Bundles of a release, which want one shard."""
AIM_S = 10.0

Figures = dict[str, Any]


def main() -> None:
    """Run the benchmark alone."""
    figures = measure()
    settings = {"shards": SHARDS, "nodes": NODES, "replicas": REPLICAS, "lost": LOST, "stages": STAGES}
    publish("planner", settings=settings, figures=figures, checks=checks(figures))


def measure() -> Figures:
    """Return how long planning from scratch, after a loss and for balance takes, and what each moves."""
    shards, models, load = cluster()
    started_cpu_s = time.process_time()
    first, scratch_s = _timed(shards, models, load, {}, Limits())
    lost = {s.shard_id for s in random.Random(1).sample(shards, LOST)}
    left = [s for s in shards if s.shard_id not in lost]
    second, repair_s = _timed(left, models, load, first.assignments, Limits())
    third, balance_s = _timed(shards, models, load, second.assignments, Limits(mode=Mode.PERIODIC))
    spread_bytes = _held_bytes(shards, models, third.assignments)
    return {
        "from_scratch_s": scratch_s,
        "replicas": sum(map(len, first.assignments.values())),
        "unplaced": len(first.unplaced) + len(second.unplaced) + len(third.unplaced),
        "memory_max_to_mean": _max_to_mean(_held_bytes(shards, models, first.assignments)),
        "after_loss_s": repair_s,
        "after_loss_moves": len(second.moves),
        "lost_replicas": sum(len(lost & set(h)) for h in first.assignments.values()),
        "after_loss_replicas": sum(map(len, second.assignments.values())),
        "balance_s": balance_s,
        "balance_moves": len(third.moves),
        "cpu_s_in_all": time.process_time() - started_cpu_s,
        "balance_memory_max_to_mean": _max_to_mean(spread_bytes),
    }


def checks(figures: Figures) -> list[Check]:
    """Return the figures beside their aims."""
    return [
        at_most(f"plan {REPLICAS:,} replicas on {SHARDS:,} shards", figures["from_scratch_s"], AIM_S, "s"),
        at_least("replicas placed", figures["replicas"], REPLICAS),
        at_most("fullest shard against the mean", figures["memory_max_to_mean"], 1.2),
        at_most(f"plan again after losing {LOST} shards", figures["after_loss_s"], AIM_S, "s"),
        at_most(
            "replicas moved after the loss, against those lost",
            figures["after_loss_moves"] / figures["lost_replicas"],
            1.0,
        ),
        at_least("replicas after the loss", figures["after_loss_replicas"], REPLICAS),
        at_most("balance after the lost shards are back", figures["balance_s"], AIM_S, "s"),
        at_most("replicas without a place", figures["unplaced"], 0),
    ]


def cluster() -> tuple[list[ShardFacts], list[ModelFacts], Mapping[ModelVersion, float]]:
    """Return shards on nodes and releases of several bundles, of mixed sizes and under a Zipf load."""
    rng = random.Random(0)
    count = REPLICAS // Limits().min_replicas
    models = [
        ModelFacts(
            model=ModelVersion(f"model-{i:06}", "1"),
            memory_bytes=int(math.exp(rng.gauss(math.log(20e6), 1))),
            releases=frozenset({f"release-{i // STAGES}"}),
        )
        for i in range(count)
    ]
    load = {m.model: 20_000 / (rank + 10) for rank, m in enumerate(rng.sample(models, count))}
    capacity = int(sum(m.memory_bytes for m in models) * Limits().min_replicas / SHARDS / 0.7)
    shard = ShardFacts(shard_id="", node="", capacity_bytes=capacity)
    shards = [replace(shard, shard_id=f"shard-{i}", node=f"node-{i % NODES}") for i in range(SHARDS)]
    return shards, models, load


def _timed(
    shards: Sequence[ShardFacts],
    models: Sequence[ModelFacts],
    load: Mapping[ModelVersion, float],
    previous: Assigned,
    limits: Limits,
) -> tuple[Plan, float]:
    started = time.perf_counter()
    answer = plan(0, shards, models, load, previous, limits)
    return answer, time.perf_counter() - started


def _held_bytes(
    shards: Sequence[ShardFacts], models: Sequence[ModelFacts], assignments: Assigned
) -> list[int]:
    held = {s.shard_id: 0 for s in shards}
    for facts in models:
        for shard_id in assignments[facts.model]:
            held[shard_id] += facts.memory_bytes
    return list(held.values())


def _max_to_mean(values: Sequence[int]) -> float:
    return max(values) * len(values) / sum(values)


if __name__ == "__main__":
    main()
