"""Nearest neighbours in the retrieval service: `make bench-ann` writes `build/bench/ann.json`.

One million vectors of width 64 in a two-tower bundle. The tuner tries kinds of index and how far they look;
the best of each kind is then a bundle of its own, loaded by a shard in a process of its own and asked over
gRPC, one search at a time, for queries that the tuner did not compare on. Recall is against comparing all.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from services import codec
from shards.ann_index import AnnKnobs
from shards.release import ModelVersion
from shards.search_context import SearchContext
from shards.two_tower import INDEX_FILE
from tests.bench.large_index import MODEL, write_large_index
from tests.bench.large_shop import LargeShop
from tests.bench.result import Check, at_least, at_most, publish
from tests.bench.shard_process import shard_process
from tests.bench.spread import quantiles_ms
from tests.services.shard_client import connect
from training.ann_tuning import (
    AnnTarget,
    AnnTuner,
    Measured,
    Queries,
    Rows,
    Tuned,
    best_of,
    factories_for,
    nearest,
)
from training.tuned_bundle import open_tunable, write_tuned

K = 100
RECALL_AIM, P99_AIM_MS = 0.99, 5.0
FLAT = "Flat"
_FIRST_CONTEXT = 1000
"""Goldens asked those before."""

Figures = dict[str, Any]


def measure(folder: Path, *, items: int, queries: int, trials: int, seed: int) -> Figures:
    """Return what each kind of index gave, and which the tuner chose."""
    shop, models = LargeShop(items, seed), folder / f"models-{items}-{seed}"
    begun_s = time.perf_counter()
    if not (models / MODEL.model / MODEL.version).exists():
        write_large_index(models, shop)
    tunable = open_tunable(models, MODEL)
    contexts = [shop.context(_FIRST_CONTEXT + number) for number in range(2 * queries)]
    asked = contexts[queries:]
    vectors = Queries(compared_QD=tunable.queries(contexts[:queries]), held_out_QD=tunable.queries(asked))
    tuner = AnnTuner(
        vector_ND=tunable.vector_ND,
        queries=vectors,
        target=AnnTarget(k=K, recall=RECALL_AIM, p99_ms=P99_AIM_MS),
        factories=[kind for kind in factories_for(*tunable.vector_ND.shape) if kind != FLAT],
        folder=folder / f"tuning-{items}-{seed}",
        seed=seed,
        on_trial=_say,
    )
    made_s = time.perf_counter() - begun_s
    chosen = tuner.tune(trials)
    tuned_s = time.perf_counter() - begun_s - made_s
    exact_QK = nearest(tunable.vector_ND, vectors.held_out_QD, K)
    kinds: dict[str, Figures] = {}
    for kind, tuned in _best_of_each(tuner, chosen):
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            model = write_tuned(Path(scratch), tunable, MODEL.version, tuned)
            path = Path(scratch) / model.model / model.version
            served = asyncio.run(_served(Path(scratch) / "state", model, path, asked, exact_QK))
            size_bytes = (path / INDEX_FILE).stat().st_size
        kinds[kind] = {
            "knobs": asdict(tuned.choice.knobs),
            "index_bytes": size_bytes,
            "search_ms": {"median": tuned.choice.median_ms, "p99": tuned.choice.p99_ms},
            **served,
        }
        sys.stderr.write(f"{kind}: {kinds[kind]}\n")
    return {
        "chosen": asdict(chosen.choice),
        "kinds": kinds,
        "tried": [asdict(one) for one in chosen.tried],
        "seconds": {"made": round(made_s, 1), "tuned": round(tuned_s, 1)},
    }


def _best_of_each(tuner: AnnTuner, chosen: Tuned) -> Iterator[tuple[str, Tuned]]:
    """Give the best setting of each kind, one after the other as indexes are large, the flat index first."""
    everything = Measured(factory=FLAT, knobs=AnnKnobs(), recall=1.0, median_ms=0.0, p99_ms=0.0)
    yield FLAT, tuner.told(everything, chosen.tried)
    for kind in tuner.factories:
        tried = [one for one in chosen.tried if one.factory == kind]
        yield kind, tuner.told(best_of(tried, tuner.target), tried)


async def _served(
    state: Path, model: ModelVersion, path: Path, asked: Sequence[SearchContext], exact_QK: Rows
) -> Figures:
    """Return what a shard that holds one bundle answers, and what that takes."""
    with shard_process(state) as address:
        async with connect(address) as client:
            idle = (await client.shard()).memory_bytes
            replica = await client.load(model, path)
            found, called, computed = 0, [], []
            for context, exact_K in zip(asked, exact_QK, strict=True):
                call = codec.Retrieval(model=model, context=context, k=K)
                started = time.perf_counter()
                answer = await client.retrieve(call)
                called.append(time.perf_counter() - started)
                computed.append(answer.compute_s)
                rows = [int(item_id) for item_id in answer.candidates.item_ids]
                found += len(np.intersect1d(rows, exact_K))
            resident = (await client.shard()).memory_bytes
    return {
        "recall": round(found / exact_QK.size, 5),
        "service_ms": quantiles_ms(called),
        "compute_ms": quantiles_ms(computed),
        "memory_bytes": replica.memory_bytes,
        "resident_bytes": resident - idle,
        "load_s": replica.load_time_ms / 1000,
    }


def _say(tried: Measured) -> None:
    sys.stderr.write(f"{tried.factory} {tried.knobs}: {tried.recall:.4f}, {tried.median_ms:.3f} ms\n")


def checks_of(figures: Figures, items: int) -> list[Check]:
    """Return the checks of the kind that the tuner chose; the others stand in the file."""
    kind = figures["chosen"]["factory"]
    served = figures["kinds"][kind]
    what = f"{items:,} vectors, {kind}"
    flat_p50 = figures["kinds"][FLAT]["service_ms"]["p50"]
    return [
        at_least(f"{what}: recall@{K} over gRPC", served["recall"], RECALL_AIM),
        at_most(f"{what}: p99 in the service", served["compute_ms"]["p99"], P99_AIM_MS, "ms"),
        at_most(f"{what}: p99 over gRPC", served["service_ms"]["p99"], P99_AIM_MS, "ms"),
        at_most(
            f"{what}: p50 over gRPC, flat takes {flat_p50:g}", served["service_ms"]["p50"], flat_p50, "ms"
        ),
    ]


def main() -> int:
    """Run the benchmark; 1 where a figure misses its aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=500, help="to compare settings on, and as many others")
    parser.add_argument("--trials", type=int, default=36)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="keep vectors, indexes and trials here, and go on with them"
    )
    settings = vars(parser.parse_args())
    kept = settings.pop("folder")
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        figures = measure(kept or Path(folder), **settings)
    publish(
        "ann", settings=settings, figures=figures, checks=(checks := checks_of(figures, settings["items"]))
    )
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
