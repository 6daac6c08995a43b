"""A part of `make bench-quality`: hard negatives beside random ones, as Facebook's retrieval has them (R3).

Over online_retail (proxy queries): towers of that recipe's features, trained as those of `movielens_ensemble`
by a hinge on the cosine, learn from the newest queries before the test split and are asked the newest of it.
100 random negatives count for each positive; hard ones are items that the model itself ranked from 21 to 200
after the epoch before. The last variant has online ones instead: the 32 hardest of what a batch has.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tests.bench.quality_negatives import Task, figures_of
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from tests.bench.spread import spread_of_each
from training.recipes import RECIPES
from training.recipes.movielens_ensemble import EASY, HARD
from training.two_tower_training import TwoTowerTraining

EPOCHS, TAUGHT, TESTED = 4, 8_000, 3_000
QUICK_EPOCHS, QUICK_TAUGHT, QUICK_TESTED = 2, 1_000, 300
"""Queries, always the newest."""
_RANDOM = replace(EASY, counted="random", per_positive=100)


def _with_hard(per_positive: int) -> TwoTowerTraining:
    return replace(_RANDOM, hard=replace(HARD.hard, per_positive=per_positive))


VARIANTS: Mapping[str, TwoTowerTraining] = {
    "100 easy": _RANDOM,
    "100 easy to 1 hard": _with_hard(1),
    "100 easy to 10 hard": _with_hard(10),
    "32 hardest of the batch": EASY,
}


def hard_negatives(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Return recall and coverage of each variant; whether hard negatives raise R@10 with every seed."""
    epochs, taught, tested = (
        (QUICK_EPOCHS, QUICK_TAUGHT, QUICK_TESTED) if run.quick else (EPOCHS, TAUGHT, TESTED)
    )
    recipe = replace(RECIPES["online_retail"], two_tower_queries=taught)
    task = Task.of(recipe, run.load(recipe.dataset_name))
    task = replace(task, asked=task.asked[-tested:])

    def trained(training: TwoTowerTraining, seed: int) -> dict[str, float]:
        changed = replace(task, recipe=replace(recipe, two_tower=training))
        return figures_of(changed, changed.trained((), seed, epochs))

    found = {
        name: spread_of_each([trained(training, seed) for seed in range(run.seeds)])
        for name, training in VARIANTS.items()
    }
    figures = {"seeds": run.seeds, "epochs": epochs, "taught": taught, "tested": tested, "variants": found}
    easy, *harder = VARIANTS
    runs = {name: each["recall_10"]["runs"] for name, each in found.items()}
    return figures, [
        at_least(f"R@10, least gain of a seed over {easy}: {name}", _least_gain(runs[easy], runs[name]), 0.0)
        for name in harder
    ]


def _least_gain(before: Sequence[float], after: Sequence[float]) -> float:
    return min(high - low for low, high in zip(before, after, strict=True))
