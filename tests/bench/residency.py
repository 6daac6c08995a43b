"""What a shard's bundles cost: `python -m tests.bench.residency` writes `build/bench/residency.json`.

Load times, memory per bundle, the latency of a steady model while others come and go back to back, against
before, in turns within one run, and resident memory over 200 loads and unloads. The shard, the steady model's
caller and whoever has bundles loaded are a process each.
"""

import argparse
import asyncio
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shards.release import ModelVersion, Stage
from tests.bench.result import Check, at_most, publish
from tests.bench.shard_process import shard_process
from tests.bench.steady_client import SteadyClient, steady_client
from tests.services.shard_client import ShardClient, connect
from tests.shards.bundles import build_models
from tests.shards.many_bundles import build_many
from tests.shards.onnx_bundles import write_with_onnx

CALLS_PER_S = 100
WINDOW_S = 5.0
PAUSE_S = 0.5
STEADY = "two_tower"
P99_RATIO_AIM = 1.2
FLATNESS_AIM = 1.03
FIRST_CYCLE = 20
CYCLES_LOOKED_AT = 10

Figures = dict[str, Any]
Quantiles = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """A shard that runs, and the bundles below `root`."""

    address: str
    client: ShardClient
    root: Path
    models: dict[ModelVersion, Stage]

    async def load(self, model: ModelVersion) -> tuple[float, int]:
        """Load a bundle; returns seconds and bytes as the shard measured them."""
        replica = await self.client.load(model, self.root / model.model / model.version)
        return replica.load_time_ms / 1000, replica.memory_bytes


@dataclass(kw_only=True)
class Steady:
    """Latencies of the steady model in each window, while nothing loads and while others do."""

    quiet: list[Quantiles] = field(default_factory=list)
    loading: list[Quantiles] = field(default_factory=list)
    loads: int = 0


async def measure(folder: Path, *, bundles: int, windows: int, cycles: int) -> Figures:
    """Return all figures."""
    build_models(folder / "torch")
    for path in (folder / "torch").glob("*/*"):
        write_with_onnx(folder / "kinds", path)
    models = build_many(folder / "models", folder / "kinds", bundles)
    with shard_process(folder / "state") as address:
        async with connect(address) as client:
            bench = Bench(address=address, client=client, root=folder / "models", models=models)
            loads = await load_figures(bench)
            disturbance = await disturbance_figures(bench, windows)
            return loads | disturbance | await flatness_figures(bench, cycles)


async def load_figures(bench: Bench) -> Figures:
    """Return load times and memory of every bundle; the first of each kind, which loads libraries, apart."""
    loaded = {model: await bench.load(model) for model in bench.models}
    kinds: dict[str, list[tuple[float, int]]] = {}
    for model, figures in loaded.items():
        kinds.setdefault(model.model.rpartition("-")[0], []).append(figures)
    later = {kind: found[1:] or found for kind, found in kinds.items()}
    warm = [figures for found in later.values() for figures in found]
    return {
        "bundles": len(loaded),
        "load_time_ms": _quantiles([seconds for seconds, _ in warm]),
        "memory_bytes": {
            kind: round(float(np.median([size for _, size in found]))) for kind, found in later.items()
        },
    }


async def disturbance_figures(bench: Bench, windows: int) -> Figures:
    """Return the steady model's latency, quiet and while others load and unload, in alternating windows."""
    steady = next(model for model in bench.models if model.model.startswith(STEADY))
    others = [model for model in bench.models if model != steady]
    seen = Steady()
    with steady_client(bench.address, steady, CALLS_PER_S) as caller:
        async with _churn(bench, others, seen) as churning:
            await caller.window(WINDOW_S)
            for k in range(windows):
                # Whatever else the machine does, and whatever drifts, meets both sorts alike.
                for churns in (False, True) if k % 2 else (True, False):
                    await _window(caller, churning, seen, loading=churns)
    quiet, loading = _medians(seen.quiet), _medians(seen.loading)
    return {
        "quiet_ms": quiet,
        "loading_ms": loading,
        "ratio": {name: loading[name] / quiet[name] for name in quiet},
        "windows_ms": {"quiet": seen.quiet, "loading": seen.loading},
        "loads_meanwhile": seen.loads,
    }


async def _window(caller: SteadyClient, churning: asyncio.Event, seen: Steady, *, loading: bool) -> None:
    """Look at the steady model for a while in which others load, or none does."""
    if loading:
        churning.set()
    latencies = await caller.window(WINDOW_S)
    churning.clear()
    (seen.loading if loading else seen.quiet).append(_quantiles(latencies))
    # A load that has begun ends before the next window.
    await asyncio.sleep(PAUSE_S)


@asynccontextmanager
async def _churn(bench: Bench, models: Sequence[ModelVersion], seen: Steady) -> AsyncIterator[asyncio.Event]:
    """Unload and load the models in turns whenever the event is set."""
    on = asyncio.Event()

    async def turn() -> None:
        while True:
            for model in models:
                await on.wait()
                await bench.client.unload(model)
                await bench.load(model)
                seen.loads += 1

    task = asyncio.create_task(turn())
    try:
        yield on
    finally:
        task.cancel()
        await asyncio.wait([task])


async def flatness_figures(bench: Bench, cycles: int) -> Figures:
    """Return resident memory over the cycles, each of which unloads and loads one bundle of every kind."""
    turns = list(bench.models)[-7:]
    resident = []
    for _ in range(cycles):
        for model in turns:
            await bench.client.unload(model)
        for model in turns:
            await bench.load(model)
        resident.append((await bench.client.shard()).memory_bytes)
    return {"cycles": cycles, "resident_bytes": resident}


def checks_of(figures: Figures) -> list[Check]:
    """Return the checks."""
    resident = figures["resident_bytes"]
    growth = _resident_at(resident, len(resident)) / _resident_at(resident, FIRST_CYCLE)
    return [
        at_most(
            "p99 of a steady model while others load, against before", figures["ratio"]["p99"], P99_RATIO_AIM
        ),
        at_most(
            f"resident memory after cycle {len(resident)}, against cycle {FIRST_CYCLE}", growth, FLATNESS_AIM
        ),
    ]


def _resident_at(resident: Sequence[int], cycle: int) -> float:
    """Return the median of the last cycles: from one to the next it varies by as much as the aim allows."""
    return float(np.median(resident[max(cycle - CYCLES_LOOKED_AT, 0) : cycle]))


def _medians(windows: Sequence[Quantiles]) -> Quantiles:
    """Return each quantile's median over the windows: one that the machine's other work hit counts once."""
    return {name: round(float(np.median([window[name] for window in windows])), 3) for name in windows[0]}


def _quantiles(seconds: Sequence[float]) -> Quantiles:
    p50, p99, p999 = np.quantile(np.array(seconds) * 1000, [0.5, 0.99, 0.999])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3), "p99.9": round(float(p999), 3)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundles", type=int, default=42)
    parser.add_argument("--windows", type=int, default=15, help="pairs of windows, quiet and loading")
    parser.add_argument("--cycles", type=int, default=200)
    options = parser.parse_args()
    settings = vars(options)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        figures = asyncio.run(measure(Path(folder), **settings))
    publish("residency", settings=settings, figures=figures, checks=checks_of(figures))


if __name__ == "__main__":
    main()
