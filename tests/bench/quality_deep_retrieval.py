"""A part of `make bench-quality`: what Deep Retrieval finds by scoring a part of the catalogue.

Over the test queries of online_retail (proxies), beside the same model's towers over every item.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from deploy.folders import cache_dir
from shards.forward_index import ForwardIndex
from shards.tokenizer import Tokenizer
from tests.bench.result import Check, at_least, at_most
from tests.bench.spread import mean_of, spread_of
from training.datasets import sources
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset
from training.embedding import examples_of, train_embedding
from training.paths import path_recall
from training.recipe import Recipe
from training.recipes import RECIPES
from training.retrieval import encoded, recall_at
from training.snapshot import requests_between, snapshot
from training.trainer import Seeded

SEEDS = (0, 1, 2)
EPOCHS = 6
TAUGHT, TESTED = 25_000, 3_000
"""Queries, the newest before the test and the newest of it."""
BEAMS = (32, 64, 128)
DEPTHS = (10, 100)


def deep_retrieval(data_dir: Path) -> tuple[dict[str, Any], list[Check]]:
    """Recall and the share of items that is scored, by the paths that a search follows."""
    recipe = RECIPES["deep_retrieval"]
    dataset = sources.load(recipe.dataset_name, cache_dir=cache_dir(), data_dir=data_dir)
    runs = [_measured(recipe, dataset, seed) for seed in SEEDS]
    assert recipe.paths is not None
    served = f"beam {recipe.paths.beam}"
    kept = mean_of([run[served]["recall_10"] / run["brute force"]["recall_10"] for run in runs])
    scored = mean_of([run[served]["scored"] for run in runs])
    figures = {
        "seeds": len(SEEDS),
        "epochs": EPOCHS,
        "queries": {"taught": TAUGHT, "tested": TESTED},
        "rankings": {
            name: {figure: spread_of([run[name][figure] for run in runs]) for figure in runs[0][name]}
            for name in runs[0]
        },
    }
    return figures, [
        at_least(f"paths, {served}, R@10 over that of brute force", kept, 0.95),
        at_most(f"paths, {served}, share of the catalogue that is scored", scored, 0.25),
    ]


def _measured(recipe: Recipe, dataset: Dataset, seed: int) -> Mapping[str, Mapping[str, float]]:
    test_ms = known_until_ms(dataset)
    known = snapshot(dataset, test_ms)
    asked, taught = (
        requests_between(dataset, *span, newest=newest, history_limit=recipe.history_limit)
        for span, newest in (((test_ms, 1 << 62), TESTED), ((0, test_ms), TAUGHT))
    )
    texts = [*known.items.column("title").to_pylist(), *known.queries.column("query").to_pylist()]
    tokenizer = Tokenizer.train(texts, vocab_size=recipe.features.vocab_size)
    embedding = train_embedding(recipe, known, tokenizer, taught, seeded=Seeded(seed=seed), epochs=EPOCHS)
    assert embedding.paths is not None
    examples = examples_of(embedding.encoder, ForwardIndex(known.items), asked)
    with torch.inference_mode():
        vector_QD = encoded(embedding.model, examples)
        vector_ND = embedding.model.encode_item(embedding.item)
        found = {
            "brute force": {
                f"recall_{k}": recall_at(embedding.model, examples, embedding.item, k) for k in DEPTHS
            }
        }
        for beam in BEAMS:
            measured = [
                path_recall(embedding.paths.index(), vector_QD, examples.row_Q, vector_ND, beam=beam, k=k)
                for k in DEPTHS
            ]
            found[f"beam {beam}"] = {
                f"recall_{k}": recall for k, (recall, _) in zip(DEPTHS, measured, strict=True)
            } | {"scored": measured[0][1]}
    return found
