"""What each block of rankers costs: `make bench-ranker-latency` writes `build/bench/ranker_latency.json`.

Rankers of the recipe `online_retail`, each with one block changed, are exported with random weights over a
catalogue of 20,000 items. Their engines score 200 candidates as a shard calls them, features included, on one
thread, in turns; times are the processor's, which other work on the machine hardly touches. Histories are of
50 events, those that SIM searches of 5,000.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from shards.feature_kinds import Category, HistoryAges, HistoryCategories, HistoryItems
from shards.features import Feature
from shards.loading import load_bundle
from shards.release import ModelVersion
from shards.search_context import SearchContext
from shards.stages import Scorer
from tests.bench.large_shop import RANKER_MODEL, LargeShop, write_scorers
from tests.bench.ranker_blocks import BLOCKS, with_block
from tests.bench.result import Check, at_most, publish
from tests.bench.spread import quantiles_ms
from training.recipe import Recipe
from training.recipes.online_retail import ONLINE_RETAIL

LONG = 5_000
SIM_AIM = 1.5
"""SIM's time with its long history is at most so many times that of DIN with a short one."""
_SEARCHES = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A ranker, and how many events are in the histories of those who ask it."""

    changes: Mapping[str, Any]
    events: int = 50


DIN, SIM = "DIN", "SIM (hard), 5,000 events"
SIM_SOFT = "SIM (soft)"
TIMED = {
    **{name: Block(changes=changes) for name, changes in BLOCKS.items() if name != SIM_SOFT},
    SIM: Block(changes={"history": "search"}, events=LONG),
    f"{SIM_SOFT}, 5,000 events": Block(changes={"history": "search", "search": "soft"}, events=LONG),
    "FiBiNET, Hadamard, a matrix for each pair": Block(
        changes={"field_crosses": "both", "field_matrices": "pair"}
    ),
}


def measure(
    folder: Path, names: Sequence[str], *, items: int, candidates: int, calls: int
) -> dict[str, dict[str, float]]:
    """Return the quantiles of the milliseconds of the blocks of these names."""
    torch.set_num_threads(1)
    shop = LargeShop(items)
    engines = {name: _engine(folder, shop, name, TIMED[name]) for name in names}
    contexts = {
        events: [shop.context(number, bought=events) for number in range(_SEARCHES)]
        for events in {TIMED[name].events for name in names}
    }
    taken_s: dict[str, list[float]] = {name: [] for name in names}
    found = [shop.candidates(number, candidates) for number in range(_SEARCHES)]
    for call in range(calls):
        for name, engine in engines.items():
            # A copy, as no two searches share a history that is looked up already.
            context: SearchContext = replace(contexts[TIMED[name].events][call % _SEARCHES])
            started = time.process_time()
            engine.score(context, found[call % _SEARCHES], 0, {}, (), 0)
            taken_s[name].append(time.process_time() - started)
    return {name: quantiles_ms(taken) for name, taken in taken_s.items()}


def _engine(folder: Path, shop: LargeShop, name: str, block: Block) -> Scorer:
    version = ModelVersion(RANKER_MODEL.model, str(list(TIMED).index(name)))
    write_scorers(folder, shop, recipe_of(block), version=version.version)
    engine = load_bundle(version, folder / version.model / version.version, "cpu").servable
    assert isinstance(engine, Scorer)
    return engine


def recipe_of(block: Block) -> Recipe:
    """Return the recipe with the block's ranker, which reads histories as long as the block's."""
    assert ONLINE_RETAIL.ranker is not None
    features = tuple(_longer(feature, block.events) for feature in ONLINE_RETAIL.features.ranking)
    searched: tuple[Feature, ...] = (
        HistoryCategories(name="history_aisles", source="item.aisle", vocabulary=(), max_len=block.events),
        Category(name="aisle", source="item.aisle", vocabulary=()),
    )
    hard = block.changes.get("history") == "search" and "search" not in block.changes
    return replace(
        ONLINE_RETAIL,
        pre_ranker=None,
        ranker=replace(ONLINE_RETAIL.ranker, model=with_block(ONLINE_RETAIL.ranker.model, block.changes)),
        features=replace(ONLINE_RETAIL.features, ranking=features + searched * hard),
    )


def _longer(feature: Feature, events: int) -> Feature:
    return replace(feature, max_len=events) if isinstance(feature, HistoryItems | HistoryAges) else feature


def _table(figures: Mapping[str, Mapping[str, float]]) -> Table:
    table = Table("block", "p50, ms", "p99, ms")
    for name, taken in figures.items():
        table.add_row(name, f"{taken['p50']:.2f}", f"{taken['p99']:.2f}")
    return table


def checks_of(figures: Mapping[str, Mapping[str, float]]) -> list[Check]:
    """Return the checks: SIM beside DIN, where both were timed."""
    if not {SIM, DIN} <= figures.keys():
        return []
    ratio = figures[SIM]["p50"] / figures[DIN]["p50"]
    return [at_most(f"{SIM}, over {DIN}", round(ratio, 3), SIM_AIM, "times")]


def main() -> int:
    """Run the benchmark; 1 where a figure misses its aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--candidates", type=int, default=200)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--only", action="append", choices=TIMED, help="a block's name; repeatable")
    settings = vars(parser.parse_args())
    sizes = {name: value for name, value in settings.items() if name != "only"}
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        figures = measure(Path(folder), settings["only"] or list(TIMED), **sizes)
    Console().print(_table(figures))
    checks = checks_of(figures)
    publish("ranker_latency", settings=settings, figures=figures, checks=checks)
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
