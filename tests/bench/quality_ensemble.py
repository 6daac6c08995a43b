"""A part of `make bench-quality` about Facebook's embedding-based retrieval (R3).

As `tests.bench.quality_negatives`, over `movielens_ensemble`: searches with words, hinge on the cosine.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from deploy.folders import cache_dir
from shards.features import Feature
from tests.bench.ablations import without_features
from tests.bench.quality_negatives import EPOCHS, SEEDS, Task, figures_of, summary
from tests.bench.result import Check, at_least
from training.datasets import sources
from training.recipes import RECIPES
from training.recipes.movielens_ensemble import CLUSTER, PLACE

_HARD = (
    "two_tower.hard.per_positive=2",
    "two_tower.hard.first_rank=21",
    "two_tower.hard.last_rank=200",
)
_MANY_EASY = ("two_tower.counted=random", "two_tower.per_positive=100")
VARIANTS: Mapping[str, Sequence[str]] = {
    "easy": (),
    "easy, 2 hardest of the batch": ("two_tower.per_positive=2",),
    "easy and hard": _HARD,
    "hard alone, then easy": (*_HARD, "two_tower.hard.alone=true", "two_tower.hard.until_epoch=2"),
    "100 easy": _MANY_EASY,
    "100 easy to 1 hard": (*_HARD, "two_tower.hard.per_positive=1", *_MANY_EASY),
    "easy, failed searches 4 times as often": (
        "two_tower.hard_positives.times=4",
        "two_tower.hard_positives.beyond_rank=100",
    ),
    "margin .05": ("two_tower.margin=0.5",),
    "margin .4": ("two_tower.margin=4",),
}
LEFT_OUT: Mapping[str, Sequence[Feature]] = {
    "easy, with location and cluster": (),
    "easy, with location": CLUSTER,
    "easy, with cluster": PLACE,
}
"""Features that the other variants have none of, which are about negatives, positives and the margin."""


def ensemble(data_dir: Path) -> tuple[dict[str, Any], list[Check]]:
    """R3: hard negatives and positives, the margin, two models as one; location and cluster."""
    found = {
        name: summary([figures_of(task, task.trained(changes, seed, EPOCHS)) for seed in range(SEEDS)])
        for name, (task, changes) in runs_over(data_dir).items()
    }
    recall = {name: figures["recall_10"]["mean"] for name, figures in found.items()}
    of_100 = {name: figures["recall_100"]["mean"] for name, figures in found.items()}
    return {"seeds": SEEDS, "epochs": EPOCHS, "variants": found}, [
        at_least("hard negatives against easy ones alone, R@10", recall["easy and hard"], recall["easy"]),
        at_least(
            "1 hard to 100 easy against 100 easy alone, R@10",
            recall["100 easy to 1 hard"],
            recall["100 easy"],
        ),
        at_least(
            "1 hard to 100 easy against 100 easy alone, R@100",
            of_100["100 easy to 1 hard"],
            of_100["100 easy"],
        ),
        at_least(
            "location and cluster against neither, R@100",
            of_100["easy, with location and cluster"],
            of_100["easy"],
        ),
        at_least(
            "ensemble against the easy model, R@10", recall["ensemble of easy and hard"], recall["easy"]
        ),
    ]


def runs_over(data_dir: Path) -> Mapping[str, tuple[Task, Sequence[str]]]:
    """Return each variant's task and the settings that it changes."""
    recipe = RECIPES["movielens_ensemble"]
    dataset = sources.load(recipe.dataset_name, cache_dir=cache_dir(), data_dir=data_dir)
    whole = Task.of(recipe, dataset)

    def task(left_out: Sequence[Feature], *, joined: bool = False) -> Task:
        smaller = without_features(recipe, *(feature.name for feature in left_out))
        return replace(whole, recipe=smaller if joined else replace(smaller, ensemble=None))

    neither = (*PLACE, *CLUSTER)
    return {
        **{name: (task(neither), changes) for name, changes in VARIANTS.items()},
        "ensemble of easy and hard": (task(neither, joined=True), ()),
        **{name: (task(left_out), ()) for name, left_out in LEFT_OUT.items()},
    }
