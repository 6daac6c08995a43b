"""A part of `make bench-quality` about self-supervision (R12): what two views of a film give to cold ones.

As `tests.bench.quality_negatives`, and apart for the films that at most `COLD` of the training queries took.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from deploy.folders import cache_dir
from tests.bench.quality_negatives import EPOCHS, SEEDS, Task, summary
from tests.bench.result import Check, at_least
from training.datasets import sources
from training.embedding import Embedding
from training.recipes import RECIPES
from training.retrieval import RetrievalSet, recall_at
from training.tensors import rows_of

COLD = 5
_MASK = RECIPES["movielens_views"].two_tower.self_supervised.mask

_WEIGHT = "two_tower.self_supervised.weight="
VARIANTS: Mapping[str, Sequence[str]] = {
    "without": (_WEIGHT + "0",),
    **{
        mask: (f"two_tower.self_supervised.mask={mask}",)
        for mask in ("random", "complementary", "information", "dropout")
    },
}


def self_supervised(data_dir: Path) -> tuple[dict[str, Any], list[Check]]:
    """R12: recall of cold films and of all, with and without the contrastive loss."""
    recipe = RECIPES["movielens_views"]
    task = Task.of(recipe, sources.load(recipe.dataset_name, cache_dir=cache_dir(), data_dir=data_dir))
    found = {
        name: summary([_figures(task, task.trained(changes, seed, EPOCHS)) for seed in range(SEEDS)])
        for name, changes in VARIANTS.items()
    }
    cold = {name: figures["cold_recall_100"]["mean"] for name, figures in found.items()}
    return {"seeds": SEEDS, "epochs": EPOCHS, "cold": COLD, "variants": found}, [
        at_least("cold films, R@100 with views against without", cold[_MASK], cold["without"]),
    ]


def _figures(task: Task, embedding: Embedding) -> dict[str, float]:
    examples = task.examples(embedding)
    taken_N = torch.bincount(task.taken(), minlength=len(task.known.items))
    cold = (taken_N[examples.row_Q] <= COLD).nonzero().flatten()
    some = replace(
        examples,
        request=rows_of(examples.request, cold),
        row_Q=examples.row_Q[cold],
        owner_Q=examples.owner_Q[cold],
    )
    return {
        "cold_recall_100": _recall(embedding, some),
        "recall_100": _recall(embedding, examples),
        "cold_queries": len(some),
    }


def _recall(embedding: Embedding, examples: RetrievalSet) -> float:
    with torch.inference_mode():
        return recall_at(embedding.model, examples, embedding.item, 100)
