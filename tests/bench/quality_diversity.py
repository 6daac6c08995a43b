"""A part of `make bench-quality` about the diversity that random negatives leave (R2), in the gift shop.

As `tests.bench.quality_negatives`, over the towers of `retail_views` without words of queries and without
the self-supervised loss: asked is what customers buy next, so that only who asks tells lists apart.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.ablations import without_features
from tests.bench.quality_negatives import EPOCHS, Task, figures_of
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from tests.bench.spread import spread_of_each
from training.overrides import with_overrides
from training.recipes import RECIPES

VARIANTS: Mapping[str, Sequence[str]] = {
    "mixed, logQ": (),
    "mixed": ("two_tower.log_q=false",),
    "uniform": ("two_tower.in_batch=false",),
}


def diversity(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """R2: recall and coverage of lists by negatives of the batch, and by random ones alone."""
    browsing = without_features(RECIPES["retail_views"], "query_tokens", "query_ngrams")
    recipe = with_overrides(browsing, ("two_tower.self_supervised.weight=0",))
    task = Task.of(recipe, run.load("online_retail"))
    epochs = 1 if run.quick else EPOCHS
    found = {
        name: spread_of_each(
            [figures_of(task, task.trained(changes, seed, epochs)) for seed in range(run.seeds)]
        )
        for name, changes in VARIANTS.items()
    }
    shown = {name: figures["p90_coverage"]["mean"] for name, figures in found.items()}
    return {"seeds": run.seeds, "epochs": epochs, "variants": found}, [
        at_least("P90 coverage, mixed with logQ against uniform", shown["mixed, logQ"], shown["uniform"]),
        at_least("P90 coverage, mixed against uniform", shown["mixed"], shown["uniform"]),
    ]
