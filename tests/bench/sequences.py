"""A part of `make bench-quality` about history transformers: what logQ correction gives them.

Over amazon_beauty: leave-one-out, every item ranked for every user, who keep their history in the ranking.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deploy.folders import cache_dir
from tests.bench.result import Check, at_least
from training.datasets import sources
from training.datasets.amazon_beauty import first_users
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset
from training.embedding import train_embedding
from training.models.two_tower import TwoTower
from training.recipes import RECIPES
from training.retrieval import RetrievalSet, recall_at
from training.snapshot import requests_between, snapshot
from training.tensors import as_tensors
from training.trainer import FitConfig, Seeded

DATA = "amazon_beauty"
DEPTH = 10
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "mixed, logQ": {},
    "mixed": {"log_q": False},
    "in-batch, logQ": {"negatives": 0},
    "in-batch": {"negatives": 0, "log_q": False},
}
ABLATION_USERS = 3_000
ABLATION_FIT = FitConfig(
    epochs=6, batch_size=64, weight_decay=0.0, patience=6, warmup_steps=50, last_rate=0.05
)


def _load(data_dir: Path) -> Dataset:
    return sources.load(DATA, cache_dir=cache_dir(), data_dir=data_dir)


def log_q(data_dir: Path, seeds: int) -> tuple[dict[str, Any], list[Check]]:
    """What logQ correction gives with mixed and with in-batch negatives: R@10, kept, over some users."""
    dataset = first_users(_load(data_dir), ABLATION_USERS)
    runs = {
        name: [_ablated(dataset, changes, seed) for seed in range(seeds)]
        for name, changes in VARIANTS.items()
    }
    recalls = {name: float(np.mean(found)) for name, found in runs.items()}
    figures = {
        "seeds": seeds,
        "epochs": ABLATION_FIT.epochs,
        "users": ABLATION_USERS,
        "recall_10": recalls,
        "runs": runs,
        "claimed": {"source": "PinnerFormer, arXiv 2205.04507", "mixed, logQ": 0.229, "mixed": 0.138},
    }
    return figures, [
        at_least("logQ with mixed negatives, R@10 against without", recalls["mixed, logQ"], recalls["mixed"]),
        at_least("logQ in-batch, R@10 against without", recalls["in-batch, logQ"], recalls["in-batch"]),
    ]


def _ablated(dataset: Dataset, changes: Mapping[str, Any], seed: int) -> float:
    recipe = RECIPES["sasrec"]
    assert recipe.sequences is not None
    recipe = replace(recipe, sequences=replace(recipe.sequences, fit=ABLATION_FIT, **changes))
    test_ms = known_until_ms(dataset)
    asked = requests_between(dataset, test_ms, test_ms + 1, newest=1 << 30, history_limit=200)
    known = snapshot(dataset, test_ms)
    embedding = train_embedding(recipe, known, None, asked[:1], seeded=Seeded(seed=seed))
    assert not isinstance(embedding.model, TwoTower)
    rows = {item_id: row for row, item_id in enumerate(known.items.column("item_id").to_pylist())}
    examples = RetrievalSet(
        request=as_tensors(embedding.encoder.encode_requests(asked.contexts)),
        row_Q=torch.tensor([rows[item_id] for item_id in asked.item_ids]),
        owner_Q=torch.arange(len(asked)),
    )
    with torch.inference_mode():
        return recall_at(embedding.model, examples, embedding.item, DEPTH)
