"""A part of `make bench-quality`: what Deep Retrieval finds by scoring a part of the catalogue.

Over the test queries of online_retail (proxies), beside the same model's towers over every item.
"""

from collections.abc import Mapping
from typing import Any

import torch

from shards.forward_index import ForwardIndex
from shards.tokenizer import Tokenizer
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least, at_most
from tests.bench.spread import mean_of, spread_of
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset
from training.embedding import examples_of, train_embedding
from training.paths import path_recall
from training.recipe import Recipe
from training.recipes import RECIPES
from training.retrieval import encoded, recall_at
from training.snapshot import requests_between, snapshot
from training.trainer import Seeded

EPOCHS, TAUGHT, TESTED = 6, 25_000, 3_000
QUICK_EPOCHS, QUICK_TAUGHT, QUICK_TESTED = 2, 4_000, 300
"""Queries, the newest before the test and the newest of it."""
BEAMS = (32, 64, 128)
DEPTHS = (10, 100)


def deep_retrieval(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Recall and the share of items that is scored, by the paths that a search follows."""
    recipe = RECIPES["deep_retrieval"]
    dataset = run.load(recipe.dataset_name)
    sizes = (QUICK_EPOCHS, QUICK_TAUGHT, QUICK_TESTED) if run.quick else (EPOCHS, TAUGHT, TESTED)
    runs = [_measured(recipe, dataset, sizes, seed) for seed in range(run.seeds)]
    assert recipe.paths is not None
    served = f"beam {recipe.paths.beam}"
    kept = mean_of([each[served]["recall_10"] / each["brute force"]["recall_10"] for each in runs])
    scored = mean_of([each[served]["scored"] for each in runs])
    figures = {
        "seeds": run.seeds,
        "epochs": sizes[0],
        "queries": {"taught": sizes[1], "tested": sizes[2]},
        "rankings": {
            name: {figure: spread_of([each[name][figure] for each in runs]) for figure in runs[0][name]}
            for name in runs[0]
        },
    }
    return figures, [
        at_least(f"paths, {served}, R@10 over that of brute force", kept, 0.95),
        at_most(f"paths, {served}, share of the catalogue that is scored", scored, 0.25),
    ]


def _measured(
    recipe: Recipe, dataset: Dataset, sizes: tuple[int, int, int], seed: int
) -> Mapping[str, Mapping[str, float]]:
    epochs, taught_count, tested_count = sizes
    test_ms = known_until_ms(dataset)
    known = snapshot(dataset, test_ms)
    asked, taught = (
        requests_between(dataset, *span, newest=newest, history_limit=recipe.history_limit)
        for span, newest in (((test_ms, 1 << 62), tested_count), ((0, test_ms), taught_count))
    )
    texts = [*known.items.column("title").to_pylist(), *known.queries.column("query").to_pylist()]
    tokenizer = Tokenizer.train(texts, vocab_size=recipe.features.vocab_size)
    embedding = train_embedding(recipe, known, tokenizer, taught, seeded=Seeded(seed=seed), epochs=epochs)
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
