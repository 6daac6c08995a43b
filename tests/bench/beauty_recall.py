"""A history transformer trained on some users of amazon_beauty, and its recall of their test items.

Leave-one-out: every item is ranked for every user, who keep their history in the ranking.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from shards.search_context import SearchContext
from tests.bench.quality_run import QualityRun
from training.datasets.amazon_beauty import first_users
from training.datasets.splits import known_until_ms
from training.embedding import Embedding, train_embedding
from training.models.two_tower import TwoTower
from training.recipe import Recipe
from training.retrieval import RetrievalSet, recall_at
from training.snapshot import Requests, Snapshot, requests_between, snapshot
from training.tensors import as_tensors
from training.trainer import FitConfig, Seeded

DATA = "amazon_beauty"
DEPTH = 10
USERS, QUICK_USERS = 3_000, 600
_HISTORY_LIMIT = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """What was known before the test, and what each user then took."""

    known: Snapshot
    asked: Requests


def left_out(run: QualityRun) -> LeftOut:
    """Return the first users and their test items."""
    dataset = first_users(run.load(DATA), QUICK_USERS if run.quick else USERS)
    test_ms = known_until_ms(dataset)
    asked = requests_between(dataset, test_ms, test_ms + 1, newest=1 << 30, history_limit=_HISTORY_LIMIT)
    return LeftOut(known=snapshot(dataset, test_ms), asked=asked)


def fit_of(run: QualityRun) -> FitConfig:
    """Return how long these small models train."""
    epochs = 3 if run.quick else 6
    return FitConfig(
        epochs=epochs, batch_size=64, weight_decay=0.0, patience=epochs, warmup_steps=50, last_rate=0.05
    )


def trained(recipe: Recipe, users: LeftOut, fit: FitConfig, seed: int) -> Embedding:
    """Return a model of the recipe, trained on all that was known for as long as `fit` says."""
    assert recipe.sequences is not None
    recipe = replace(recipe, sequences=replace(recipe.sequences, fit=fit))
    return train_embedding(recipe, users.known, None, users.asked[:1], seeded=Seeded(seed=seed))


def recall_10(embedding: Embedding, users: LeftOut, contexts: Sequence[SearchContext]) -> float:
    """Return the share of users whose test item is among the ten nearest, asked by these contexts."""
    assert not isinstance(embedding.model, TwoTower)
    item_ids = users.known.items.column("item_id").to_pylist()
    rows = {item_id: row for row, item_id in enumerate(item_ids)}
    examples = RetrievalSet(
        request=as_tensors(embedding.encoder.encode_requests(contexts)),
        row_Q=torch.tensor([rows[item_id] for item_id in users.asked.item_ids]),
        owner_Q=torch.arange(len(contexts)),
    )
    with torch.inference_mode():
        return recall_at(embedding.model, examples, embedding.item, DEPTH)
