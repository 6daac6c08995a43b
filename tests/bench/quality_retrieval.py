"""A part of `make bench-quality`: protocol A on online_retail as far as retrieval, and the gate's labels.

The recipe without its rankers: every channel alone and all of them merged, over all items, with the gate open
for every search. The release is refreshed as often as the recipe says while the split goes by, and once
never. The gate's labels say what embedding would add to a search; its figures are of searches that it did not
learn from.
"""

import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from deploy.refreshing import run_of
from deploy.training import TrainingOptions, train_release
from deploy.workspace import Workspace
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from tests.bench.spread import spread_of, spread_of_each
from training.datasets.tables import Dataset
from training.evaluation.baselines import BASELINES
from training.evaluation.judgements import judged_queries
from training.evaluation.offline import evaluate, open_cascade
from training.evaluation.replay import replay
from training.evaluation.report import HYBRID, summarise
from training.overrides import with_overrides
from training.recipe import Recipe
from training.recipes import RECIPES
from training.trainer import ignore

DATA = "online_retail"
QUICK = ("two_tower.fit.epochs=1", "two_tower_queries=5000", "ranking_queries=2000")
QUICK_ASKED = 300


def retrieval(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Train by every seed and ask every test query; with `quick` little of both, which has no aim."""
    recipe, data = without_rankers(RECIPES[DATA]), run.load(DATA)
    if run.quick:
        recipe = with_overrides(recipe, QUICK)
    runs = [_run(recipe, data, seed, limit=QUICK_ASKED if run.quick else 0) for seed in range(run.seeds)]
    rankings = {
        name: spread_of_each([each["rankings"][name] for each in runs]) for name in runs[0]["rankings"]
    }
    never = {
        name: spread_of_each([each["never_refreshed"][name] for each in runs])
        for name in runs[0]["never_refreshed"]
    }
    learned = spread_of_each([each["learned"] for each in runs])
    figures = {
        "seeds": run.seeds,
        "training_s": spread_of([each["training_s"] for each in runs]),
        "refreshed_every_days": recipe.refresh_days,
        "rankings": rankings,
        "never_refreshed": never,
        "learned": learned,
        "other_libraries": [asdict(line) for line in BASELINES[data.name]],
    }
    if run.quick:
        return figures, []
    return figures, [
        at_least("retrieval, merged channels, R@100", rankings[HYBRID]["recall_100"]["mean"], 0.993),
        at_least("gate, AUC of its labels before retrieval", learned["gate auc_before"]["mean"], 0.5),
        at_least("gate, AUC of its labels after retrieval", learned["gate auc_after"]["mean"], 0.5),
    ]


def without_rankers(recipe: Recipe) -> Recipe:
    """Return the recipe as far as retrieval goes; without pages the gate learns what the candidates gain."""
    assert recipe.gate_model is not None
    return replace(
        recipe, pre_ranker=None, ranker=None, gate_model=replace(recipe.gate_model, label="recall")
    )


def _run(recipe: Recipe, data: Dataset, seed: int, *, limit: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        workspace, started = Workspace(Path(folder)), time.perf_counter()
        trained = train_release(recipe, data, workspace, TrainingOptions(seed=seed), ignore)
        seconds = time.perf_counter() - started
        judged = judged_queries(data, "test", limit=limit, history_limit=trained.release.history_limit)
        release, models_dir = trained.release, workspace.models_dir
        making = run_of(recipe, data, release, workspace)
        assert recipe.refresh_days is not None
        ranks = replay(making, release, models_dir, judged, recipe.refresh_days, gate=lambda *_: True)
        stale = evaluate(open_cascade(release, models_dir), judged, gate=lambda *_: True)
    return {
        "training_s": round(seconds, 1),
        "learned": dict(trained.figures),
        "rankings": {row.ranking: asdict(row.overall) for row in summarise(ranks)},
        "never_refreshed": {row.ranking: asdict(row.overall) for row in summarise(stale)},
    }
