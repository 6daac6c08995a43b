"""Rankers beside LightGBM and logistic regression: `make bench-ranking` writes `build/bench/ranking.json`.

All see the same candidates of the same split with the same features; figures are means over seeds on queries
of the test split. Trees and regressions are fitted to all candidates, ours to samples of them, so that
probabilities are calibrated alike before they are judged: by Platt's scaling on the held-out queries.
`--only MODEL` takes some; --quick takes 2,000 queries and one seed, to see that it runs.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from deploy.folders import cache_dir
from tests.bench.data_dir import data_dir
from tests.bench.ranking_data import RankingData, ranking_data
from tests.bench.ranking_models import Compared, Floats, Scorer, compared
from tests.bench.result import Check, at_least, at_most, publish
from tests.bench.spread import spread_of_each
from training.datasets import sources
from training.evaluation import metrics
from training.ranking import RankingSet, ndcg_at_10
from training.recipes import RECIPES

TASKS = ("online_retail", "completejourney", "movielens_small")
"""Recipes with a ranker whose first task is compared on."""
PEER = "LightGBM LambdaMART"
_QUICK_QUERIES = 2_000
_CALLS, _CANDIDATES = 200, 200

Figures = dict[str, Any]


def measure(data: RankingData, models: Mapping[str, Compared], seeds: int) -> Figures:
    """Return each model's figures as mean, deviation and runs."""
    found: Figures = {}
    for name, model in models.items():
        runs = [figures_of(model, data, seed) for seed in range(seeds)]
        found[name] = {"ours": model.ours} | spread_of_each(runs)
    return found


def figures_of(model: Compared, data: RankingData, seed: int) -> dict[str, float]:
    """Return the figures of a model fitted with a seed."""
    started = time.perf_counter()
    score = model.fit(data, seed)
    fit_s = time.perf_counter() - started
    raw_QC = score(data.test)
    present_QC = data.test.present_QC.numpy()
    label_N = data.test.label_QCT[..., 0].numpy()[present_QC] > 0
    raw_N = raw_QC[present_QC]
    probability_N = calibrated(score(data.held_out), data.held_out, raw_N)
    return {
        "ndcg_10": ndcg_at_10(torch.from_numpy(raw_QC), data.test),
        "auc": metrics.auc(label_N, raw_N),
        "gauc": metrics.gauc(label_N, raw_N, np.nonzero(present_QC)[0]),
        "log_loss": metrics.log_loss(label_N, probability_N),
        "ece": metrics.expected_calibration_error(label_N, probability_N),
        "predicted_over_taken": float(probability_N.sum() / label_N.sum()),
        "fit_s": fit_s,
        **latency_of(score, data.test),
    }


def calibrated(held_out_QC: Floats, held_out: RankingSet, raw_N: Floats) -> NDArray[np.float64]:
    """Return probabilities by a scale and a shift of the log-odds that suit the held-out requests.

    Source: Platt, "Probabilistic Outputs for Support Vector Machines", 1999.
    """
    present_QC = held_out.present_QC.numpy()
    label_N = held_out.label_QCT[..., 0].numpy()[present_QC] > 0
    platt = LogisticRegression(C=1e6).fit(held_out_QC[present_QC][:, None], label_N)
    probability_N: NDArray[np.float64] = platt.predict_proba(raw_N[:, None])[:, 1]
    return probability_N


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; 1 where a figure misses its aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", help="a model's name; repeatable")
    parser.add_argument("--recipes", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--queries", type=int, default=0, help="to train on and to test; 0: all")
    parser.add_argument("--quick", action="store_true", help="2,000 queries, one seed")
    parser.add_argument("--seeds", type=int, default=0, help="0: three, or one with --quick")
    options = parser.parse_args(arguments)
    folder, seeds = data_dir(parser), options.seeds or (1 if options.quick else 3)
    torch.set_num_threads(1)
    figures: Figures = {}
    checks: list[Check] = []
    for task in options.recipes:
        recipe = RECIPES[task]
        assert recipe.ranker is not None
        models = compared(tuple(each.name for each in recipe.tasks), recipe.ranker.training)
        if unknown := sorted(set(options.only or ()) - models.keys()):
            parser.error(f"there is no model {unknown[0]!r}; there are {', '.join(models)}")
        dataset = sources.load(recipe.dataset_name, cache_dir=cache_dir(), data_dir=folder)
        with tempfile.TemporaryDirectory(prefix="headrace-bench-") as scratch:
            queries = _QUICK_QUERIES if options.quick else options.queries
            data = ranking_data(recipe, dataset, Path(scratch), queries=queries)
        chosen = {name: model for name, model in models.items() if name in (options.only or models)}
        figures[task] = measure(data, chosen, seeds)
        checks += checks_of(task, figures[task])
    settings = {"seeds": seeds, **vars(options)}
    publish("ranking", settings=settings, figures=figures, checks=checks)
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
