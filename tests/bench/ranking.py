"""Rankers beside LightGBM and logistic regression: `make bench-ranking` writes `build/bench/ranking.json`.

All see the same candidates of the same queries with the same features, found once: the newest before the
test train and stop (`QUERIES` of each recipe, or `--queries`), `--tested` of the test, evenly spread, judge;
figures are means over seeds. Trees and regressions are fitted to all candidates, ours to samples of them, so
that probabilities are calibrated alike before they are judged, as recipes do it: by a scale and a shift
fitted to the queries held out. Of ours, the one with the best NDCG@10 there is compared with the LightGBM
that does better on the test, and its calibration is measured within the period before the test; `later
ratio`, predicted over taken of the test, is what drift leaves of it. `--only MODEL` takes some; --quick takes
1,000 queries and one seed, to see that it runs.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from deploy.folders import cache_dir
from tests.bench.data_dir import data_dir
from tests.bench.ranking_calibration import calibration_of
from tests.bench.ranking_data import RankingData, ranking_data
from tests.bench.ranking_models import PEERS, compared
from tests.bench.ranking_runs import Judged, all_judged
from tests.bench.result import Check, at_least, at_most, publish
from tests.bench.spread import spread_of, spread_of_each
from training.datasets import sources
from training.models.multi_task_ranker import MultiTaskRankerConfig
from training.recipe import RankerRecipe, Recipe
from training.recipes import RECIPES

QUERIES = {
    "retail_returns": 3_000,
    "completejourney": 3_000,
    "movielens_small": 6_000,
    "online_retail": 3_000,
}
"""Recipes with a ranker whose first task is compared on, and how many queries teach it: more where few are
taken."""
CASCADE = "online_retail"
_TESTED, _QUICK_QUERIES = 5_000, 1_000

Figures = dict[str, Any]
Ranker = RankerRecipe[MultiTaskRankerConfig]


def measure(
    data: RankingData, ranker: Ranker, names: Sequence[str], seeds: int, processes: int = 1
) -> Iterator[Figures]:
    """Yield the figures of the models of these names, after each seed those of all until then."""
    runs: dict[str, list[Judged]] = {name: [] for name in names}
    jobs = [(name, seed) for seed in range(seeds) for name in names]
    for (name, seed), found in zip(jobs, all_judged(ranker, data, jobs, processes), strict=True):
        runs[name].append(found)
        if name == names[-1]:
            yield _summary(data, ranker, runs, seed + 1 == seeds)


def _summary(
    data: RankingData, ranker: Ranker, runs: Mapping[str, Sequence[Judged]], complete: bool
) -> Figures:
    models = {name: spread_of_each([run.figures for run in found]) for name, found in runs.items()}
    known = compared(ranker)
    ours = [name for name in models if known[name].ours]
    figures: Figures = {"models": models}
    if not ours or not complete:
        return figures
    best = max(ours, key=lambda name: float(models[name]["held_out_ndcg_10"]["mean"]))
    figures["best"] = best
    if peers := [name for name in models if name in PEERS]:
        figures["above_lightgbm"] = {
            figure: above(figure, runs[best], {peer: runs[peer] for peer in peers})
            for figure in ("ndcg_10", "auc")
        }
    return figures | {"calibration": calibration_of(known[best], data)}


def above(figure: str, best: Sequence[Judged], peers: Mapping[str, Sequence[Judged]]) -> Figures:
    """Return how far our best is above the better peer by a figure: mean and deviation over seeds."""
    peer = max(peers, key=lambda name: float(np.mean([run.figures[figure] for run in peers[name]])))
    pairs = list(zip(best, peers[peer], strict=True))
    gain = spread_of([ours.figures[figure] - theirs.figures[figure] for ours, theirs in pairs])
    found: Figures = {"peer": peer, **gain}
    if figure == "ndcg_10":
        gain_Q: NDArray[np.float64] = np.mean([ours.ndcg - theirs.ndcg for ours, theirs in pairs], axis=0)
        found["standard_error_of_requests"] = round(float(gain_Q.std(ddof=1) / np.sqrt(len(gain_Q))), 5)
    return found


def checks_of(task: str, figures: Figures) -> list[Check]:
    """Return the checks; those that need a model that was left out are left out too."""
    checks = []
    for figure, found in figures.get("above_lightgbm", {}).items():
        name = f"{task}: {figure} of {figures['best']} above {found['peer']}"
        checks.append(at_least(name, found["mean"], 0.0))
    if "calibration" in figures:
        name = f"{task}: predicted over taken, away from 1, after down-sampling, {figures['best']}"
        checks.append(at_most(name, abs(figures["calibration"]["calibrated"] - 1.0), 0.01))
    return checks


def overall(figures: Mapping[str, Figures]) -> list[Check]:
    """Return on how many recipes beside the cascade ours has the better NDCG@10, where two were compared."""
    others = [found["above_lightgbm"]["ndcg_10"] for task, found in figures.items() if _compared(task, found)]
    if len(others) < 2:
        return []
    won = sum(found["mean"] > 0 for found in others)
    return [at_least(f"recipes of {len(others)} with NDCG@10 above LightGBM's", won, 2)]


def _compared(task: str, found: Figures) -> bool:
    return task != CASCADE and "above_lightgbm" in found


def table_of(task: str, models: Mapping[str, Figures]) -> Table:
    """Return the figures of a recipe for people."""
    names = list(next(iter(models.values())))
    table = Table("model", *(name.replace("_", " ") for name in names), title=task, title_justify="left")
    for model, found in models.items():
        cells = [f"{found[name]['mean']:.4g} ± {found[name]['deviation']:.1g}" for name in names]
        table.add_row(model, *cells)
    return table


def chosen_models(recipe: Recipe, only: Sequence[str]) -> list[str]:
    """Return these names of models, all where there is none; ValueError for a name that is none."""
    assert recipe.ranker is not None, "there is a ranker to compare"
    models = compared(recipe.ranker)
    if unknown := sorted(set(only) - models.keys()):
        raise ValueError(f"there is no model {unknown[0]!r}; there are {', '.join(models)}")
    return [name for name in models if name in (only or models)]


def measure_recipe(recipe: Recipe, folder: Path, settings: argparse.Namespace) -> Iterator[Figures]:
    """Yield the figures of the models of a recipe, as `measure` does."""
    assert recipe.ranker is not None, "there is a ranker to compare"
    dataset = sources.load(recipe.dataset_name, cache_dir=cache_dir(), data_dir=folder)
    queries = settings.queries or QUERIES[recipe.name]
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch:
        data = ranking_data(recipe, dataset, Path(scratch), queries=queries, tested=settings.tested)
    names = chosen_models(recipe, settings.only)
    yield from measure(data, recipe.ranker, names, settings.seeds, settings.processes)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 where a figure misses its aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="a model's name; repeatable")
    parser.add_argument("--recipes", nargs="+", choices=QUERIES, default=list(QUERIES))
    parser.add_argument("--queries", type=int, default=0, help="to train on and to hold out; 0: by recipe")
    parser.add_argument("--tested", type=int, default=_TESTED, help="of the test; 0: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="that fit at once")
    parser.add_argument("--quick", action="store_true", help="1,000 queries each, one seed")
    options = parser.parse_args(arguments)
    if options.quick:
        options.queries = options.tested = _QUICK_QUERIES
        options.seeds = 1
    folder = data_dir(parser)
    torch.set_num_threads(1)
    figures: Figures = {}
    checks: list[Check] = []
    try:
        chosen_models(RECIPES[CASCADE], options.only)
    except ValueError as error:
        parser.error(str(error))
    for task in options.recipes:
        for found in measure_recipe(RECIPES[task], folder, options):
            figures[task] = found
            Console(width=200).print(table_of(task, found["models"]))
        checks += checks_of(task, figures[task])
        publish("ranking", settings=vars(options), figures=figures, checks=checks + overall(figures))
    return 0 if all(check.ok for check in checks + overall(figures)) else 1


if __name__ == "__main__":
    sys.exit(main())
