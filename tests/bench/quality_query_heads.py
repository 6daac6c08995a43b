"""A part of `make bench-quality`: what a second head of the query tower gives queries of two meanings (R4).

Pairs of one-word queries of online_retail are conflated into one word each, and the recipe `dpsr` learns
from the newest of them before the test among other queries, a small model of words and item ids, once with
two heads and once with one. The other queries hold the items of the two senses apart: without them the model
moves both to where the pseudo-word is, and one head has them all. Asked is each pseudo-word, by nobody in
particular, with one look-up for each head and as many items in all; judged is by the items that its words
led to.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

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
from training.snapshot import Requests, requests_between, snapshot
from training.tensors import as_tensors
from training.trainer import FitConfig, Seeded

PAIRS, QUICK_PAIRS, QUERIES, OTHERS, DEPTH, WIDTH = 20, 5, 5_000, 20_000, 10, 16
FIT = FitConfig(epochs=8, batch_size=256, learning_rate=4e-3)
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
    model = replace(recipe.two_tower.model, heads=heads, width=WIDTH)
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
    conflates = pc.is_in(dataset.queries.column("query"), words)
    known = snapshot(dataset, test_ms)
    asked, others = (
        requests_between(
            replace(dataset, queries=dataset.queries.filter(kept)), 0, test_ms, newest=newest, history_limit=1
        )
        for kept, newest in ((conflates, QUERIES), (pc.invert(conflates), OTHERS))
    )
    texts = [*known.items.column("title").to_pylist(), *words.to_pylist()]
    tokenizer = Tokenizer.train(texts, vocab_size=recipe.features.vocab_size)
    requests = _shuffled(asked, others, seed)
    embedding = train_embedding(recipe, known, tokenizer, requests, seeded=Seeded(seed=seed))
    return embedding, tuple(known.items.column("item_id").to_pylist())


def _shuffled(asked: Requests, others: Requests, seed: int) -> Requests:
    contexts = [*asked.contexts, *others.contexts]
    item_ids = [*asked.item_ids, *others.item_ids]
    order = np.random.default_rng(seed).permutation(len(contexts))
    return Requests(contexts=[contexts[at] for at in order], item_ids=[item_ids[at] for at in order])


def shown(embedding: Embedding, item_ids: Sequence[str], senses: Sequence[Senses]) -> Shown:
    """Return what the look-ups of all heads together show somebody unknown who asks for each pseudo-word."""
    contexts = [SearchContext(query=sense.word, now_ms=0) for sense in senses]
    with torch.inference_mode():
        vector = embedding.model.encode_query(as_tensors(embedding.encoder.encode_requests(contexts)))
        vector_QHD = vector if vector.ndim == 3 else vector.unsqueeze(1)
        score_QHN = vector_QHD @ embedding.model.encode_item(embedding.item).T
    rows_QH = score_QHN.topk(DEPTH, dim=2).indices.tolist()
    share_QH2 = np.array(
        [
            [_shares(rows[: DEPTH // len(heads)], item_ids, sense) for rows in heads]
            for heads, sense in zip(rows_QH, senses, strict=True)
        ]
    )
    share_Q2 = np.array(
        [_shares(_union(heads), item_ids, sense) for heads, sense in zip(rows_QH, senses, strict=True)]
    )
    # Positive where a head finds more of the first sense.
    leaning_QH = share_QH2[..., 0] - share_QH2[..., 1]
    return Shown(
        both=float((share_Q2.min(axis=1) > 0).mean()),
        rarer=float(share_Q2.min(axis=1).mean()),
        relevant=float(share_Q2.sum(axis=1).mean()),
        separated=float(((leaning_QH.min(axis=1) < 0) & (leaning_QH.max(axis=1) > 0)).mean()),
    )


def _union(rows_of_heads: Sequence[Sequence[int]]) -> list[int]:
    """Return `DEPTH` rows, taken from the heads in turn."""
    taken = dict.fromkeys(row for places in zip(*rows_of_heads, strict=True) for row in places)
    return list(taken)[:DEPTH]


def _shares(rows: Sequence[int], item_ids: Sequence[str], senses: Senses) -> list[float]:
    """Return the share of each of the two senses among the rows."""
    return [sum(item_ids[row] in items for row in rows) / len(rows) for items in senses.items]
