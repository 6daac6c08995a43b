"""A part of `make bench-quality` about location in two towers (R3, R5): where users of Gowalla go next.

Over `gowalla_towers`, with and without the cells that places lie in: trained on the newest visits before the
split, every user asks once at its start for places where they have not been.
"""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch

from shards.forward_index import ForwardIndex
from tests.bench.ablations import without_features
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from tests.bench.spread import spread_of_each
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset
from training.embedding import Embedding, train_embedding
from training.evaluation.next_items import DEPTH, NextItems, figures_of, next_items
from training.recipe import Recipe
from training.recipes import RECIPES
from training.recipes.gowalla_towers import LOCATION
from training.snapshot import requests_between, snapshot
from training.tensors import as_tensors
from training.trainer import Seeded

FAR_DEPTH = 100
QUICK_QUERIES = 3_000


def location(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Recall of the next places by towers with location, and without."""
    recipe, dataset = RECIPES["gowalla_towers"], run.load("gowalla_poi")
    if run.quick:
        recipe = replace(recipe, two_tower_queries=QUICK_QUERIES)
    names = [feature.name for cells in LOCATION for feature in cells]
    variants = {"with location": recipe, "without": without_features(recipe, *names)}
    users = next_items(dataset, "test", history_limit=recipe.history_limit)
    found = {
        name: spread_of_each([_figures(variant, dataset, users, seed) for seed in range(run.seeds)])
        for name, variant in variants.items()
    }
    ratio = found["with location"]["recall_20"]["mean"] / found["without"]["recall_20"]["mean"]
    return {"users": len(users), "queries": recipe.two_tower_queries, "variants": found}, [
        at_least("R@20 with location against without", ratio, 1.0)
    ]


def _figures(recipe: Recipe, dataset: Dataset, users: list[NextItems], seed: int) -> dict[str, float]:
    test_ms = known_until_ms(dataset)
    known = snapshot(dataset, test_ms)
    requests = requests_between(
        dataset, 0, test_ms, newest=recipe.two_tower_queries, history_limit=recipe.history_limit
    )
    epochs = recipe.two_tower.fit.epochs
    embedding = train_embedding(recipe, known, None, requests, seeded=Seeded(seed=seed), epochs=epochs)
    lists = _nearest(embedding, ForwardIndex(known.items), users)
    first = asdict(figures_of(users, [item_ids[:DEPTH] for item_ids in lists]))
    far = [
        len(user.relevant.intersection(item_ids)) / len(user.relevant)
        for user, item_ids in zip(users, lists, strict=True)
    ]
    return {
        "recall_20": first["recall_20"],
        "ndcg_20": first["ndcg_20"],
        "recall_100": float(np.mean(far)),
    }


@torch.inference_mode()
def _nearest(embedding: Embedding, items: ForwardIndex, users: list[NextItems]) -> list[tuple[str, ...]]:
    """Return each user's nearest places of those where they have not been."""
    item_ND = embedding.model.encode_item(embedding.item)
    contexts = [user.context for user in users]
    user_QD = embedding.model.encode_query(as_tensors(embedding.encoder.encode_requests(contexts)))
    lists = []
    for context, user_D in zip(contexts, user_QD, strict=True):
        score_N = item_ND @ user_D
        been = items.rows_of(context.user.history.item_ids)
        score_N[torch.from_numpy(been[been >= 0])] = -torch.inf
        lists.append(items.ids_at(score_N.topk(FAR_DEPTH).indices.numpy()))
    return lists
