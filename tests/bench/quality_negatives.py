"""Parts of `make bench-quality` about how a two-tower model is trained, and against which negatives (R1, R2).

Over `movielens_next`: trained on what lies before the test split, asked for the next liked film of each of
its queries, all films ranked. Every figure is the mean of some seeds with its standard deviation. "Left"
stands for impressions that were not clicked: films that the user rated below 4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deploy.folders import cache_dir
from shards.column_encoder import texts
from shards.forward_index import ForwardIndex
from shards.tokenizer import Tokenizer
from tests.bench.result import Check, at_least, at_most
from training.datasets import sources
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset
from training.embedding import Embedding, train_embedding
from training.overrides import with_overrides
from training.recipe import Recipe
from training.recipes import RECIPES
from training.retrieval import RetrievalSet, encoded, recall_at
from training.snapshot import Requests, Snapshot, requests_between, snapshot
from training.tensors import as_tensors
from training.trainer import Seeded

SEEDS = 3
EPOCHS = 3
QUERIES = 8_000
"""The newest ones that train: a small run that shows a direction."""
_FORWARD = 1 << 60

_NO_LOG_Q = "two_tower.log_q=false"
_UNIFORM = ("two_tower.in_batch=false",)
_LEFT = (
    "two_tower.hard.source=actions",
    "two_tower.hard.actions=('watch',)",
    "two_tower.hard.per_positive=4",
    "two_tower.hard.from_epoch=1",
)
_FEW = ("two_tower.counted=random", "two_tower.per_positive=3")

TRAININGS: Mapping[str, Sequence[str]] = {
    "listwise, logQ": (),
    "listwise": (_NO_LOG_Q,),
    "pointwise, 1:3": ("two_tower.loss=pointwise", *_FEW, *_UNIFORM, _NO_LOG_Q),
    "pairwise hinge": ("two_tower.loss=hinge", "two_tower.margin=3", _NO_LOG_Q),
    "pairwise logistic": ("two_tower.loss=logistic", _NO_LOG_Q),
}
NEGATIVES: Mapping[str, Sequence[str]] = {
    "mixed, logQ": (),
    "mixed": (_NO_LOG_Q,),
    "mixed, logQ streaming": ("two_tower.streaming=true",),
    "mixed, logQ, rare positives more often": ("two_tower.rare_power=0.5",),
    "uniform": _UNIFORM,
    "popularity^.5": (*_UNIFORM, "two_tower.negative_power=0.5", _NO_LOG_Q),
    "popularity^.75": (*_UNIFORM, "two_tower.negative_power=0.75", _NO_LOG_Q),
    "left alone": (*_LEFT, "two_tower.hard.alone=true", _NO_LOG_Q),
    "mixed, logQ, and left": _LEFT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What models learn from and what they are asked."""

    recipe: Recipe
    known: Snapshot
    tokenizer: Tokenizer | None
    requests: Requests
    asked: Requests

    @classmethod
    def of(cls, recipe: Recipe, dataset: Dataset) -> "Task":
        """Return the task to learn from all before the test split and to answer that."""
        test_ms = known_until_ms(dataset)
        known = snapshot(dataset, test_ms).with_neighbours(recipe.item_graph, dataset.users)
        columns = [known.items.column(name).to_pylist() for name in recipe.features.token_sources]
        words = [text for column in columns for text in texts(column)]
        limit = recipe.history_limit
        return cls(
            recipe=recipe,
            known=known,
            tokenizer=Tokenizer.train(words, vocab_size=recipe.features.vocab_size),
            requests=requests_between(
                dataset, 0, test_ms, newest=min(QUERIES, recipe.two_tower_queries), history_limit=limit
            ),
            asked=requests_between(dataset, test_ms, _FORWARD, newest=_FORWARD, history_limit=limit),
        )

    def trained(self, changes: Sequence[str], seed: int, epochs: int) -> Embedding:
        """Return the model of the recipe with such settings changed."""
        recipe = with_overrides(self.recipe, changes)
        return train_embedding(
            recipe, self.known, self.tokenizer, self.requests, seeded=Seeded(seed=seed), epochs=epochs
        )

    def taken(self) -> Tensor:
        """Return the rows [Q] of the items that the training queries took."""
        return torch.from_numpy(ForwardIndex(self.known.items).rows_of(self.requests.item_ids))

    def examples(self, embedding: Embedding) -> RetrievalSet:
        """Return the test split's queries."""
        rows = ForwardIndex(self.known.items).rows_of(self.asked.item_ids)
        return RetrievalSet(
            request=as_tensors(embedding.encoder.encode_requests(self.asked.contexts)),
            row_Q=torch.from_numpy(rows),
            owner_Q=torch.full((len(rows),), -1),
        )


def figures_of(task: Task, embedding: Embedding) -> dict[str, float]:
    """Return recall, and the share of the films that fills top tens: all of it, and 90 % of it."""
    examples = task.examples(embedding)
    with torch.inference_mode():
        item_ND = embedding.model.encode_item(embedding.item)
        top = (encoded(embedding.model, examples) @ item_ND.T).topk(10, dim=1).indices
        return {
            "recall_10": recall_at(embedding.model, examples, embedding.item, 10),
            "recall_100": recall_at(embedding.model, examples, embedding.item, 100),
            "p90_coverage": coverage(top, len(item_ND), 0.9),
            "coverage": coverage(top, len(item_ND), 1.0),
        }


def coverage(top_QK: Tensor, items: int, share: float) -> float:
    """Return the share of the items, shown oftest first, that make this share of all that is shown."""
    count_N = torch.bincount(top_QK.flatten(), minlength=items).sort(descending=True).values
    return (int((count_N.cumsum(0) < share * top_QK.numel()).sum()) + 1) / items


def summary(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the mean and standard deviation of each figure over runs."""
    return {
        name: {
            "mean": round(float(np.mean([run[name] for run in runs])), 4),
            "std": round(float(np.std([run[name] for run in runs])), 4),
        }
        for name in runs[0]
    }


def _all(data_dir: Path, variants: Mapping[str, Sequence[str]]) -> dict[str, dict[str, dict[str, float]]]:
    recipe = RECIPES["movielens_next"]
    task = Task.of(recipe, sources.load(recipe.dataset_name, cache_dir=cache_dir(), data_dir=data_dir))
    return {
        name: summary([figures_of(task, task.trained(changes, seed, EPOCHS)) for seed in range(SEEDS)])
        for name, changes in variants.items()
    }


def trainings(data_dir: Path) -> tuple[dict[str, Any], list[Check]]:
    """R1: one two-tower model trained pointwise, pairwise and listwise."""
    found = _all(data_dir, TRAININGS)
    recall = {name: figures["recall_100"]["mean"] for name, figures in found.items()}
    checks = [at_least(f"R@100, {name}", recall[name], 0.3) for name in TRAININGS]
    best = recall["listwise, logQ"]
    return {"seeds": SEEDS, "epochs": EPOCHS, "variants": found}, [
        *checks,
        at_least("listwise with logQ against pointwise, R@100", best, recall["pointwise, 1:3"]),
    ]


def negatives(data_dir: Path) -> tuple[dict[str, Any], list[Check]]:
    """R2: the same model trained against negatives of every kind."""
    found = _all(data_dir, NEGATIVES)
    recall = {name: figures["recall_100"]["mean"] for name, figures in found.items()}
    shown = {name: figures["p90_coverage"]["mean"] for name, figures in found.items()}
    return {"seeds": SEEDS, "epochs": EPOCHS, "variants": found}, [
        at_least("mixed with logQ against without, R@100", recall["mixed, logQ"], recall["mixed"]),
        at_least("P90 coverage, mixed with logQ against uniform", shown["mixed, logQ"], shown["uniform"]),
        at_most("left alone against mixed with logQ, R@100", recall["left alone"], recall["mixed, logQ"]),
    ]
