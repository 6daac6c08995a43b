"""A part of `make bench-quality` about self-supervision (R12): what two views of an item give to cold ones.

As `tests.bench.quality_negatives`, over `retail_views`, and apart for the items that at most `COLD` of the
training queries took, and for those that none took.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from deploy.folders import cache_dir
from tests.bench.quality_negatives import EPOCHS, SEEDS, Task, summary
from tests.bench.result import Check, at_least
from training.datasets import sources
from training.embedding import Embedding
from training.recipes import RECIPES
from training.retrieval import RetrievalSet, recall_at
from training.tensors import rows_of

COLD = 1
_MASK = RECIPES["retail_views"].two_tower.self_supervised.mask

_WEIGHT = "two_tower.self_supervised.weight="
VARIANTS: Mapping[str, Sequence[str]] = {
    "without": (_WEIGHT + "0",),
    **{mask: (f"two_tower.self_supervised.mask={mask}",) for mask in ("complementary", "dropout")},
}


def self_supervised(data_dir: Path) -> tuple[dict[str, Any], list[Check]]:
    """R12: recall of cold items and of all, with and without the contrastive loss."""
    recipe = RECIPES["retail_views"]
    task = Task.of(recipe, sources.load(recipe.dataset_name, cache_dir=cache_dir(), data_dir=data_dir))
    found = {
        name: summary([_figures(task, task.trained(changes, seed, EPOCHS)) for seed in range(SEEDS)])
        for name, changes in VARIANTS.items()
    }
    cold = {name: figures["cold_recall_10"]["mean"] for name, figures in found.items()}
    return {"seeds": SEEDS, "epochs": EPOCHS, "cold": COLD, "variants": found}, [
        at_least("cold items, R@10 with views against without", cold[_MASK], cold["without"]),
    ]


def _figures(task: Task, embedding: Embedding) -> dict[str, float]:
    examples = task.examples(embedding)
    taken_N = torch.bincount(task.taken(), minlength=len(task.known.items))
    taken_Q = taken_N[examples.row_Q]
    cold, unknown = _some(examples, taken_Q <= COLD), _some(examples, taken_Q == 0)
    return {
        "cold_recall_10": _recall(embedding, cold, 10),
        "cold_recall_100": _recall(embedding, cold, 100),
        "unknown_recall_10": _recall(embedding, unknown, 10),
        "recall_10": _recall(embedding, examples, 10),
        "recall_100": _recall(embedding, examples, 100),
        "cold_queries": len(cold),
        "unknown_queries": len(unknown),
    }


def _some(examples: RetrievalSet, mask_Q: Tensor) -> RetrievalSet:
    rows = mask_Q.nonzero().flatten()
    return replace(
        examples,
        request=rows_of(examples.request, rows),
        row_Q=examples.row_Q[rows],
        owner_Q=examples.owner_Q[rows],
    )


def _recall(embedding: Embedding, examples: RetrievalSet, k: int) -> float:
    with torch.inference_mode():
        return recall_at(embedding.model, examples, embedding.item, k)
