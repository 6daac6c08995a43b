"""A part of `make bench-quality`: what a second head of the query tower gives queries of two meanings (R4).

Pairs of one-word queries of online_retail are conflated into one word each, and the recipe `dpsr` learns
from the newest of them before the test, a small model of words and item ids, once with two heads and once
with one. Asked is each pseudo-word, by nobody in particular; judged is by the items that its words led to.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor

from shards.feature_kinds import ItemId, Tokens
from shards.search_context import SearchContext
from shards.tokenizer import Tokenizer
from tests.bench.conflated_queries import Senses, conflated
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset
from training.embedding import Embedding, train_embedding
from training.recipe import Recipe
from training.recipes import RECIPES
from training.retrieval import best_scores
from training.snapshot import requests_between, snapshot
from training.tensors import as_tensors
from training.trainer import FitConfig, Seeded

PAIRS, QUICK_PAIRS, QUERIES, DEPTH, HEAD_DEPTH = 20, 5, 5_000, 10, 5
FIT = FitConfig(epochs=10, batch_size=128, learning_rate=4e-3)
FEATURES = (
    Tokens(name="query_tokens", source="query", max_len=8),
    Tokens(name="title_tokens", source="item.title", max_len=16),
    ItemId(name="item_row"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What the first places hold, meant over pseudo-words."""

    both: float
    """The share of lists with items of both senses."""
    rarer: float
    """The share of a list that the rarer sense has."""
    relevant: float
    """The share of a list that either sense has."""
    separated: float
    """The share of pseudo-words of which one head finds more of one sense and the other more of the other."""


def query_heads(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Two heads, and one beside them: lists that show both senses of a query, and whose head shows which."""
    dataset, senses = conflated(run.load("online_retail"), QUICK_PAIRS if run.quick else PAIRS)
    runs = {
        heads: [shown(*trained(dataset, senses, heads, seed), senses) for seed in range(run.seeds)]
        for heads in (1, 2)
    }
    means = {
        heads: {name: float(np.mean([getattr(one, name) for one in found])) for name in asdict(found[0])}
        for heads, found in runs.items()
    }
    figures = {
        "seeds": run.seeds,
        "pseudo_words": len(senses),
        "depth": DEPTH,
        "means": means,
        "runs": {heads: [asdict(one) for one in found] for heads, found in runs.items()},
        "claimed": {"source": "DPSR, arXiv 2006.02282", "two heads": "separate the senses of a query"},
    }
    return figures, [
        at_least("lists with both senses, two heads against one", means[2]["both"] / means[1]["both"], 1.0),
        at_least(
            "share of the rarer sense, two heads against one", means[2]["rarer"] / means[1]["rarer"], 1.0
        ),
    ]


def small(recipe: Recipe, heads: int) -> Recipe:
    """Return the recipe over words and item ids alone, with so many heads."""
    model = replace(recipe.two_tower.model, heads=heads, width=32)
    return replace(
        recipe,
        features=replace(recipe.features, two_tower=FEATURES),
        two_tower=replace(recipe.two_tower, model=model, fit=FIT, negatives=512),
    )


def trained(
    dataset: Dataset, senses: Sequence[Senses], heads: int, seed: int
) -> tuple[Embedding, tuple[str, ...]]:
    """Return a model trained on the newest pseudo-words before the test, and the ids of its items."""
    recipe, test_ms = small(RECIPES["dpsr"], heads), known_until_ms(dataset)
    words = pa.array([sense.word for sense in senses])
    asked = replace(dataset, queries=dataset.queries.filter(pc.is_in(dataset.queries.column("query"), words)))
    known = snapshot(dataset, test_ms)
    requests = requests_between(asked, 0, test_ms, newest=QUERIES, history_limit=1)
    texts = [*known.items.column("title").to_pylist(), *words.to_pylist()]
    tokenizer = Tokenizer.train(texts, vocab_size=recipe.features.vocab_size)
    embedding = train_embedding(recipe, known, tokenizer, requests, seeded=Seeded(seed=seed))
    return embedding, tuple(known.items.column("item_id").to_pylist())


def shown(embedding: Embedding, item_ids: Sequence[str], senses: Sequence[Senses]) -> Shown:
    """Return what the model shows somebody unknown who asks for each pseudo-word."""
    contexts = [SearchContext(query=sense.word, now_ms=0) for sense in senses]
    with torch.inference_mode():
        vectors = embedding.model.encode_query(as_tensors(embedding.encoder.encode_requests(contexts)))
        item_ND = embedding.model.encode_item(embedding.item)
    share_Q2 = _shares(best_scores(vectors, item_ND), item_ids, senses, DEPTH)
    separated = 0.0
    if vectors.ndim == 3:
        # Positive where a head finds more of the first sense.
        leaning = [
            np.diff(_shares(vectors[:, head] @ item_ND.T, item_ids, senses, HEAD_DEPTH))[:, 0]
            for head in range(vectors.shape[1])
        ]
        separated = float(((np.min(leaning, axis=0) < 0) & (np.max(leaning, axis=0) > 0)).mean())
    return Shown(
        both=float((share_Q2.min(axis=1) > 0).mean()),
        rarer=float(share_Q2.min(axis=1).mean()),
        relevant=float(share_Q2.sum(axis=1).mean()),
        separated=separated,
    )


def _shares(
    score_QN: Tensor, item_ids: Sequence[str], senses: Sequence[Senses], depth: int
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the share of each sense in the first places [Q, 2]."""
    row_QK = score_QN.topk(depth, dim=1).indices.tolist()
    return np.array(
        [
            [sum(item_ids[row] in items for row in rows) / depth for items in sense.items]
            for sense, rows in zip(senses, row_QK, strict=True)
        ]
    )
