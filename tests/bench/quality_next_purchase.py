"""A part of `make bench-quality`: protocol B, next purchase of what was never bought, on online_retail."""

import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from deploy.training import TrainingOptions, train_release
from deploy.workspace import Workspace
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from training.evaluation.baselines import NEXT_BASELINES
from training.evaluation.next_items import next_items, recommend, summary
from training.evaluation.offline import open_cascade
from training.evaluation.report import HYBRID
from training.recipes import RECIPES
from training.trainer import ignore


def next_purchase(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Train and measure the recipe. Nothing in it is random, so one run tells all, and it is quick."""
    recipe = RECIPES["online_retail_next"]
    data = run.load(recipe.dataset_name)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        workspace, started = Workspace(Path(folder)), time.perf_counter()
        trained = train_release(recipe, data, workspace, TrainingOptions(), ignore)
        seconds = time.perf_counter() - started
        asked = next_items(data, "test", history_limit=trained.release.history_limit)
        lists = recommend(open_cascade(trained.release, workspace.models_dir), asked)
    rankings = {name: asdict(figures) for name, figures in summary(asked, lists).items()}
    best = rankings[HYBRID]
    figures = {
        "users": len(asked),
        "training_s": round(seconds, 1),
        "weights": {channel.name: channel.weight for channel in trained.release.channels},
        "valid": dict(trained.figures),
        "rankings": rankings,
        "other_libraries": [asdict(line) for line in NEXT_BASELINES[data.name]],
    }
    return figures, [
        at_least("next purchase, users", len(asked), 1_367),
        at_least("next purchase, merged, NDCG@20", best["ndcg_20"], 0.135),
        at_least("next purchase, merged, HR@20", best["hit_rate_20"], 0.70),
        at_least("next purchase, merged, Recall@20", best["recall_20"], 0.105),
    ]
