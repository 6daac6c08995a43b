"""A part of `make bench-quality`: protocol C, the next item on amazon_beauty, leave-one-out.

Every item is ranked for every user, with the history kept in the ranking and with it left out. Published and
measured figures of others stand beside ours.
"""

import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from deploy.next_table import EXCLUDED, KEPT
from deploy.training import TrainingOptions, train_release
from deploy.workspace import Workspace
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from tests.bench.spread import spread_of_each
from training.datasets.amazon_beauty import first_users
from training.datasets.tables import Dataset
from training.evaluation.baselines import NEXT_BASELINES
from training.evaluation.next_items import keeping, leaving_out, next_items, recommend, sampled, summary
from training.evaluation.offline import open_cascade
from training.evaluation.report import HYBRID
from training.overrides import with_overrides
from training.recipe import Recipe
from training.recipes import RECIPES
from training.trainer import ignore

RECIPE = "beauty_next"
QUICK_USERS, QUICK_EPOCHS, QUICK_ASKED = 3_000, 4, 1_000


def next_item(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Train the recipe by every seed; with `quick` on some users and for a few epochs, which has no aim."""
    recipe, data = RECIPES[RECIPE], run.load(RECIPES[RECIPE].dataset_name)
    if run.quick:
        recipe = with_overrides(recipe, [f"sequences.fit.epochs={QUICK_EPOCHS}"])
        data = first_users(data, QUICK_USERS)
    runs = [_run(recipe, data, seed, limit=QUICK_ASKED if run.quick else 0) for seed in range(run.seeds)]
    rankings = {
        name: spread_of_each([each["rankings"][name] for each in runs]) for name in runs[0]["rankings"]
    }
    figures = {
        "users": len(data.users),
        "seeds": run.seeds,
        "training_s": [each["training_s"] for each in runs],
        "weights": [each["weights"] for each in runs],
        "valid": spread_of_each([each["valid"] for each in runs]),
        "rankings": rankings,
        "others": [asdict(line) for line in NEXT_BASELINES[data.name]],
    }
    return figures, [] if run.quick else _checks(rankings[f"{HYBRID}, {KEPT}"])


def _checks(merged: dict[str, dict[str, Any]]) -> list[Check]:
    return [
        at_least("next item, merged, history kept, R@10", merged["recall_10"]["mean"], 0.085),
        at_least("next item, merged, history kept, NDCG@10", merged["ndcg_10"]["mean"], 0.043),
    ]


def _run(recipe: Recipe, data: Dataset, seed: int, *, limit: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        workspace, started = Workspace(Path(folder)), time.perf_counter()
        trained = train_release(recipe, data, workspace, TrainingOptions(seed=seed), ignore)
        seconds = time.perf_counter() - started
        asked = sampled(next_items(data, "test", history_limit=trained.release.history_limit), limit)
        cascade = open_cascade(trained.release, workspace.models_dir)
        rankings: dict[str, dict[str, Any]] = {}
        for note, release in (
            (KEPT, keeping(trained.release)),
            (EXCLUDED, leaving_out(trained.release, data)),
        ):
            found = summary(asked, recommend(replace(cascade, release=release), asked))
            rankings |= {f"{name}, {note}": asdict(figures) for name, figures in found.items()}
    return {
        "training_s": round(seconds, 1),
        "weights": {channel.name: channel.weight for channel in trained.release.channels},
        "valid": dict(trained.figures),
        "rankings": rankings,
    }
