"""Rankers beside LightGBM and logistic regression: `make bench-ranking` writes `build/bench/ranking.json`.

All see the same candidates of the same queries with the same features: the newest `--queries` before the test
train and stop, `--tested` of the test, evenly spread, judge; figures are means over seeds. Trees and
regressions are fitted to all candidates, ours to samples of them, so that probabilities are calibrated alike
before they are judged, as recipes do it: by a scale and a shift fitted to the queries held out. How far that
holds is measured on those, each half calibrated by the other, and on the test, which is later.
`--only MODEL` takes some; --quick takes 2,000 queries and one seed, to see that it runs.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from deploy.folders import cache_dir
from tests.bench.data_dir import data_dir
from tests.bench.ranking_data import RankingData, ranking_data
from tests.bench.ranking_models import PEER, Compared, Scorer, compared
from tests.bench.result import Check, at_least, at_most, publish
from tests.bench.spread import spread_of_each
from training import task_serving
from training.datasets import sources
from training.evaluation import metrics
from training.models.task_links import probabilities
from training.ranking import RankingSet, ndcg_at_10
from training.recipe import Recipe
from training.recipes import RECIPES
from training.tasks import Task

TASKS = ("online_retail", "completejourney", "movielens_small")
"""Recipes with a ranker whose first task is compared on."""
_QUERIES, _TESTED, _QUICK_QUERIES = 3_000, 2_500, 2_000
_CALLS, _CANDIDATES = 100, 200

Figures = dict[str, Any]


def measure(data: RankingData, models: Mapping[str, Compared], seeds: int) -> Iterator[Figures]:
    """Yield each model's figures as mean, deviation and runs, after each seed those of all until then."""
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    for seed in range(seeds):
        for name, model in models.items():
            runs[name].append(figures_of(model, data, seed))
        yield {name: {"ours": models[name].ours} | spread_of_each(found) for name, found in runs.items()}


def figures_of(model: Compared, data: RankingData, seed: int) -> dict[str, float]:
    """Return the figures of a model fitted with a seed."""
    started = time.perf_counter()
    score = model.fit(data, seed)
    fit_s = time.perf_counter() - started
    raw_QC, held_out_QC = (torch.from_numpy(score(part)) for part in (data.test, data.held_out))
    probability_QC = calibrated(held_out_QC, data.held_out)(raw_QC)
    present_QC = data.test.present_QC.numpy()
    label_N = data.test.label_QCT[..., 0].numpy()[present_QC] > 0
    raw_N, probability_N = (values.numpy()[present_QC] for values in (raw_QC, probability_QC))
    return {
        "ndcg_10": ndcg_at_10(raw_QC, data.test),
        "auc": metrics.auc(label_N, raw_N),
        "gauc": metrics.gauc(label_N, raw_N, np.nonzero(present_QC)[0]),
        "log_loss": metrics.log_loss(label_N, probability_N),
        "ece": metrics.expected_calibration_error(label_N, probability_N),
        "taken": float(label_N.sum()),
        "predicted_over_taken": predicted_over_taken(probability_QC, data.test),
        "predicted_over_taken_then": within_its_time(held_out_QC, data.held_out),
        "fit_s": fit_s,
        **latency_of(score, data.test),
    }


def calibrated(raw_QC: Tensor, judged: RankingSet) -> Callable[[Tensor], Tensor]:
    """Return what makes probabilities of log-odds [Q, C], by those of judged requests."""
    task = Task(name="first", target_only=True)
    links = task_serving.calibrated(probabilities(1), (task,), raw_QC.unsqueeze(-1), judged)
    return lambda log_odds: links(log_odds.unsqueeze(-1)).squeeze(-1)


def within_its_time(raw_QC: Tensor, judged: RankingSet) -> float:
    """Return predicted over taken of each half of the requests, calibrated by the other half: their mean."""
    halves = [torch.arange(half, len(judged), 2) for half in (0, 1)]
    ratios = []
    for fitted, asked in (halves, reversed(halves)):
        probability_QC = calibrated(raw_QC[fitted], judged[fitted])(raw_QC[asked])
        ratios.append(predicted_over_taken(probability_QC, judged[asked]))
    return float(np.mean(ratios))


def predicted_over_taken(probability_QC: Tensor, judged: RankingSet) -> float:
    """Return how many candidates should be taken over how many were."""
    taken_QC = judged.label_QCT[..., 0] > 0
    return float(probability_QC[judged.present_QC].sum() / taken_QC[judged.present_QC].sum())


def latency_of(score: Scorer, examples: RankingSet) -> dict[str, float]:
    """Return how long the scores of one request's candidates take, features made, on one thread."""
    full = min(_CANDIDATES, examples.present_QC.shape[1])
    full_Q = (examples.present_QC.sum(dim=1) == full).nonzero()[:, 0]
    one = [examples[full_Q[n % len(full_Q)][None]] for n in range(_CALLS)] if len(full_Q) else []
    seconds = []
    for request in one:
        started = time.perf_counter()
        score(request)
        seconds.append(time.perf_counter() - started)
    p50, p99 = np.quantile(np.array(seconds or [np.nan]) * 1000, [0.5, 0.99])
    return {"p50_ms": float(p50), "p99_ms": float(p99)}


def checks_of(task: str, figures: Figures) -> list[Check]:
    """Return the checks; those that need a model that was left out are left out too."""
    ours = {name: found for name, found in figures.items() if found["ours"]}
    if not ours:
        return []
    best = max(ours, key=lambda name: float(ours[name]["ndcg_10"]["mean"]))
    found = ours[best]
    off = abs(found["predicted_over_taken"]["mean"] - 1.0)
    checks = [at_most(f"{task}: predicted over taken, away from 1, {best}", off, 0.01)]
    if PEER in figures:
        gain = found["ndcg_10"]["mean"] - figures[PEER]["ndcg_10"]["mean"]
        checks.insert(0, at_least(f"{task}: NDCG@10 of {best} above {PEER}", gain, 0.0))
    return checks


def table_of(task: str, figures: Figures) -> Table:
    """Return the figures of a recipe for people."""
    names = [name for name in next(iter(figures.values())) if name != "ours"]
    table = Table("model", *(name.replace("_", " ") for name in names), title=task, title_justify="left")
    for model, found in figures.items():
        cells = [f"{found[name]['mean']:.4g} ± {found[name]['deviation']:.1g}" for name in names]
        table.add_row(model, *cells)
    return table


def chosen_models(recipe: Recipe, only: Sequence[str]) -> Mapping[str, Compared]:
    """Return the models of these names, all where there is none; ValueError for a name that is none."""
    assert recipe.ranker is not None, "there is a ranker to compare"
    models = compared(recipe.ranker)
    if unknown := sorted(set(only) - models.keys()):
        raise ValueError(f"there is no model {unknown[0]!r}; there are {', '.join(models)}")
    return {name: model for name, model in models.items() if name in (only or models)}


def measure_recipe(recipe: Recipe, folder: Path, settings: argparse.Namespace) -> Iterator[Figures]:
    """Yield the figures of the models of a recipe, as `measure` does."""
    dataset = sources.load(recipe.dataset_name, cache_dir=cache_dir(), data_dir=folder)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch:
        data = ranking_data(recipe, dataset, Path(scratch), queries=settings.queries, tested=settings.tested)
    yield from measure(data, chosen_models(recipe, settings.only), settings.seeds)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 where a figure misses its aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="a model's name; repeatable")
    parser.add_argument("--recipes", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--queries", type=int, default=_QUERIES, help="to train on and to hold out; 0: all")
    parser.add_argument("--tested", type=int, default=_TESTED, help="of the test; 0: all")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="2,000 queries each, one seed")
    options = parser.parse_args(arguments)
    if options.quick:
        options.queries = options.tested = _QUICK_QUERIES
        options.seeds = 1
    folder = data_dir(parser)
    torch.set_num_threads(1)
    figures: Figures = {}
    checks: list[Check] = []
    try:
        chosen_models(RECIPES[TASKS[0]], options.only)
    except ValueError as error:
        parser.error(str(error))
    for task in options.recipes:
        for found in measure_recipe(RECIPES[task], folder, options):
            figures[task] = found
            Console(width=200).print(table_of(task, found))
        checks += checks_of(task, figures[task])
        publish("ranking", settings=vars(options), figures=figures, checks=checks)
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
