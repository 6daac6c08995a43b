"""Pre-ranking 10,000 candidates on one core: `make bench-prerank` writes `build/bench/prerank.json`.

The pre-ranker is the recipe's, exported over a catalogue of 100,000 items. Asked are its engine, as a shard
calls it, and then a shard in a process of its own over gRPC, each on one core and one thread.
"""

import argparse
import asyncio
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from services import codec
from shards.loading import load_bundle
from shards.stages import Scorer
from tests.bench.large_shop import PRE_RANKER_MODEL, LargeShop, write_scorers
from tests.bench.result import Check, at_least, at_most, publish
from tests.bench.shard_process import shard_process
from tests.bench.spread import quantiles_ms
from tests.services.shard_client import connect

AIM_MS = 20.0
KEEP = 500
SEARCHES = 32
"""Different searches, asked in turns."""

Figures = dict[str, Any]


def measure(folder: Path, *, items: int, candidates: int, calls: int) -> Figures:
    """Return the quantiles of both."""
    shop = LargeShop(items)
    write_scorers(folder / "models", shop)
    path = folder / "models" / PRE_RANKER_MODEL.model / PRE_RANKER_MODEL.version
    asked = [
        codec.Scoring(
            model=PRE_RANKER_MODEL,
            context=shop.context(number),
            candidates=shop.candidates(number, candidates),
            keep=KEEP,
        )
        for number in range(SEARCHES)
    ]
    return {"engine_ms": _engine(path, asked, calls)} | asyncio.run(_service(folder, path, asked, calls))


def _engine(path: Path, asked: Sequence[codec.Scoring], calls: int) -> dict[str, float]:
    """Return how long the engine takes."""
    torch.set_num_threads(1)
    cores = os.sched_getaffinity(0)
    loaded = load_bundle(PRE_RANKER_MODEL, path, "cpu")
    scorer = loaded.servable
    assert isinstance(scorer, Scorer)

    def ask(call: codec.Scoring) -> None:
        answer = scorer.score(call.context, call.candidates, call.keep, {}, (), 0)
        assert len(answer) == KEEP

    os.sched_setaffinity(0, {min(cores)})
    try:
        return quantiles_ms([_timed(ask, asked[k % len(asked)]) for k in range(calls)])
    finally:
        os.sched_setaffinity(0, cores)


async def _service(
    folder: Path, path: Path, asked: Sequence[codec.Scoring], calls: int
) -> dict[str, dict[str, float]]:
    """Return how long a shard takes on one core, by its own clock and by its caller's on another one."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[-1]})
    try:
        with shard_process(folder / "state") as address:
            # A child inherits the cores of its parent.
            os.sched_setaffinity(0, {cores[0]})
            async with connect(address) as client:
                await client.load(PRE_RANKER_MODEL, path)
                called, computed = [], []
                for k in range(calls):
                    started = time.perf_counter()
                    answer = await client.pre_rank(asked[k % len(asked)])
                    called.append(time.perf_counter() - started)
                    computed.append(answer.compute_s)
    finally:
        os.sched_setaffinity(0, cores)
    return {"service_ms": quantiles_ms(called), "service_compute_ms": quantiles_ms(computed)}


def _timed(ask: Callable[[codec.Scoring], None], call: codec.Scoring) -> float:
    started = time.perf_counter()
    ask(call)
    return time.perf_counter() - started


def checks_of(figures: Figures, candidates: int, items: int) -> list[Check]:
    """Return the checks."""
    what = f"{candidates:,} candidates of {items:,} items"
    return [
        at_most(f"{what}, engine, one core, p50", figures["engine_ms"]["p50"], AIM_MS, "ms"),
        at_most(f"{what}, engine, one core, p99", figures["engine_ms"]["p99"], AIM_MS, "ms"),
        at_most(f"{what}, shard over gRPC, one core, p50", figures["service_ms"]["p50"], AIM_MS, "ms"),
        at_least("items of the catalogue", items, 100_000),
    ]


def main() -> int:
    """Run the benchmark; 1 where a figure misses its aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--candidates", type=int, default=10_000)
    parser.add_argument("--calls", type=int, default=400)
    settings = vars(parser.parse_args())
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        figures = measure(Path(folder), **settings)
    checks = checks_of(figures, settings["candidates"], settings["items"])
    publish("prerank", settings=settings, figures=figures, checks=checks)
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
