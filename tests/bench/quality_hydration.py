"""A part of `make bench-quality`: what hydrated vectors add to the recall of later purchases.

Over online_retail (proxy queries): towers trained on the newest queries before the valid split, weights
fitted on that split, both measured on the test split with the items' numbers as of its start.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from shards.forward_index import ForwardIndex
from shards.tokenizer import Tokenizer
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from tests.bench.spread import mean_of, spread_of
from training.datasets.splits import split_of
from training.datasets.tables import Dataset
from training.embedding import examples_of, train_embedding
from training.hydration import best_weights, quantiles
from training.recipe import Recipe
from training.recipes import RECIPES
from training.retrieval import encoded
from training.snapshot import Requests, requests_between, snapshot
from training.trainer import Seeded

EPOCHS, TAUGHT, FITTED, TESTED = 6, 25_000, 2_000, 3_000
QUICK_EPOCHS, QUICK_TAUGHT, QUICK_FITTED, QUICK_TESTED = 1, 4_000, 300, 300
"""Queries, always the newest."""
DEPTHS = (10, 100)


def hydration(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Recall of three seeds, the same towers with hydration and without."""
    recipe = RECIPES["hydrated"]
    dataset = run.load(recipe.dataset_name)
    quick = (QUICK_EPOCHS, QUICK_TAUGHT, QUICK_FITTED, QUICK_TESTED)
    sizes = quick if run.quick else (EPOCHS, TAUGHT, FITTED, TESTED)
    runs = [_measured(recipe, dataset, sizes, seed) for seed in range(run.seeds)]
    means = {name: mean_of([each[name] for each in runs]) for name in runs[0]}
    figures = {
        "seeds": run.seeds,
        "epochs": sizes[0],
        "queries": dict(zip(("taught", "fitted", "tested"), sizes[1:], strict=True)),
        "recall": {name: spread_of([each[name] for each in runs]) for name in runs[0]},
    }
    return figures, [
        at_least(f"hydrated, R@{k}, against plain", means[f"hydrated, R@{k}"], means[f"plain, R@{k}"])
        for k in DEPTHS
    ]


def _measured(
    recipe: Recipe, dataset: Dataset, sizes: tuple[int, int, int, int], seed: int
) -> Mapping[str, float]:
    epochs, taught_count, fitted_count, tested_count = sizes
    assert recipe.hydration is not None
    split = split_of(dataset.queries)
    known, fresh = snapshot(dataset, split.valid_from_ms), snapshot(dataset, split.test_from_ms)

    def asked(start_ms: int, end_ms: int, newest: int) -> Requests:
        return requests_between(dataset, start_ms, end_ms, newest=newest, history_limit=recipe.history_limit)

    taught = asked(0, split.valid_from_ms, taught_count)
    texts = [*known.items.column("title").to_pylist(), *known.queries.column("query").to_pylist()]
    tokenizer = Tokenizer.train(texts, vocab_size=recipe.features.vocab_size)
    embedding = train_embedding(recipe, known, tokenizer, taught, seeded=Seeded(seed=seed), epochs=epochs)
    columns = recipe.hydration.columns
    early_NF, late_NF = (
        quantiles(ForwardIndex(then.items).columns(columns), columns) for then in (known, fresh)
    )
    fitted, tested = (
        examples_of(embedding.encoder, ForwardIndex(known.items), requests)
        for requests in (
            asked(split.valid_from_ms, split.test_from_ms, fitted_count),
            asked(split.test_from_ms, 1 << 62, tested_count),
        )
    )
    with torch.inference_mode():
        vector_ND = embedding.model.encode_item(embedding.item)
        weight_F = best_weights(
            recipe.hydration, encoded(embedding.model, fitted), fitted.row_Q, vector_ND, early_NF, seed=seed
        )
        score_QN = encoded(embedding.model, tested) @ vector_ND.T
        found = {"plain": score_QN, "hydrated": score_QN + late_NF @ weight_F}
        return {
            f"{name}, R@{k}": _recall(score_QN, tested.row_Q, k)
            for name, score_QN in found.items()
            for k in DEPTHS
        }


def _recall(score_QN: Tensor, row_Q: Tensor, k: int) -> float:
    own_Q1 = score_QN.gather(1, row_Q.unsqueeze(1))
    return float(((score_QN > own_Q1).sum(dim=1) < k).double().mean())
