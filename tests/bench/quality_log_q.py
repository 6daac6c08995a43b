"""A part of `make bench-quality`: what logQ correction gives a history transformer, on amazon_beauty."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tests.bench.beauty_recall import LeftOut, fit_of, left_out, recall_10, trained
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from tests.bench.spread import spread_of
from training.recipe import Recipe
from training.recipes import RECIPES

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "mixed, logQ": {},
    "mixed": {"log_q": False},
    "in-batch, logQ": {"negatives": 0},
    "in-batch": {"negatives": 0, "log_q": False},
}


def log_q(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Return what it gives with mixed and with in-batch negatives: R@10, kept, over some users."""
    users = left_out(run)
    recalls = {
        name: spread_of([_recall(run, users, _changed(changes), seed) for seed in range(run.seeds)])
        for name, changes in VARIANTS.items()
    }
    figures = {
        "seeds": run.seeds,
        "epochs": fit_of(run).epochs,
        "users": len(users.asked),
        "recall_10": recalls,
        "claimed": {"source": "PinnerFormer, arXiv 2205.04507", "mixed, logQ": 0.229, "mixed": 0.138},
    }
    with_it, without, batch, batch_without = (recalls[name]["mean"] for name in VARIANTS)
    return figures, [
        at_least("logQ with mixed negatives, R@10 against without", with_it, without),
        at_least("logQ in-batch, R@10 against without", batch, batch_without),
    ]


def _changed(changes: Mapping[str, Any]) -> Recipe:
    recipe = RECIPES["sasrec"]
    assert recipe.sequences is not None
    return replace(recipe, sequences=replace(recipe.sequences, **changes))


def _recall(run: QualityRun, users: LeftOut, recipe: Recipe, seed: int) -> float:
    return recall_10(trained(recipe, users, fit_of(run), seed), users, users.asked.contexts)
