"""A part of `make bench-quality`: what customers take in another shop, by spaces that are aligned or not.

Over the test sessions of `two_shops` with items of both shops: the part in shop "a" is the history, the items
of shop "b" are ranked.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from shards.ann_index import AnnIndex
from shards.bundle import open_bundle
from shards.candidates import Floats
from shards.forward_index import ForwardIndex
from shards.lookup_table import open_lookup_table
from shards.two_tower import TwoTower
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from tests.bench.spread import mean_of, spread_of
from training.channel_contents import contents_of
from training.channel_recipe import ChannelRecipe
from training.channels import Destination, write_channel
from training.checkpoints import Checkpoints
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset
from training.embedding import Embedding, train_embedding
from training.embedding_bundle import item_vectors, query_vectors
from training.evaluation.cross_shop import Crossing, asking, cross_ndcg, crossings
from training.item_index import untuned_index
from training.models.prod2vec import Prod2Vec
from training.prod2vec import ALIGNMENTS, aligned
from training.recipe import Recipe
from training.recipes import RECIPES
from training.snapshot import requests_between, snapshot
from training.suggestions import suggestions
from training.trainer import Seeded

TESTED, QUICK_TESTED = 1_000, 200
"""Sessions, the first of the test."""


def cross_shop(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """NDCG@10 in the other shop of three seeds, by alignment: of next items and of queries to suggest."""
    recipe = RECIPES["cross_shop"]
    if run.quick and recipe.prod2vec is not None:
        quick = replace(recipe.prod2vec, fit=replace(recipe.prod2vec.fit, epochs=1))
        recipe = replace(recipe, prod2vec=quick)
    dataset = run.load(recipe.dataset_name)
    test_ms = known_until_ms(dataset)
    asked = crossings(dataset.items, dataset.events, test_ms, 1 << 53, source="a", target="b")
    asked = asked[: QUICK_TESTED if run.quick else TESTED]
    runs = [_measured(recipe, dataset, asked, seed) for seed in range(run.seeds)]
    popular = _popular(dataset, asked)
    means = {name: mean_of([each[name] for each in runs]) for name in runs[0]}
    figures = {
        "seeds": run.seeds,
        "sessions": len(asked),
        "popular": popular,
        "ndcg_10": {name: spread_of([each[name] for each in runs]) for name in runs[0]},
    }
    # Of queries only the claim is held to: aligned beats unaligned, by whichever of the two.
    pairs = [("items", *pair) for pair in pairwise(ALIGNMENTS)]
    pairs += [("queries", ALIGNMENTS[0], better) for better in ALIGNMENTS[1:]]
    checks = [
        at_least(
            f"cross-shop {kind}, NDCG@10, {better} against {worse}",
            means[f"{kind}, {better}"],
            means[f"{kind}, {worse}"],
        )
        for kind, worse, better in pairs
    ]
    beaten = at_least("cross-shop items, NDCG@10, against popular", means["items, behaviour"], popular)
    return figures, [*checks, beaten]


def _measured(recipe: Recipe, dataset: Dataset, asked: list[Crossing], seed: int) -> Mapping[str, float]:
    """Return the NDCG@10 of each alignment; they differ in nothing else."""
    assert recipe.prod2vec is not None
    known = snapshot(dataset, known_until_ms(dataset))
    requests = requests_between(dataset, 0, known.now_ms, newest=8, history_limit=recipe.history_limit)
    searched = asking(asked, dataset.queries)
    settings = replace(recipe.prod2vec, alignment="none")
    apart = train_embedding(
        replace(recipe, prod2vec=settings), known, None, requests, seeded=Seeded(seed=seed)
    )
    assert isinstance(apart.model, Prod2Vec)
    found = {}
    for alignment in ALIGNMENTS:
        model = aligned(
            apart.model,
            replace(settings, alignment=alignment),
            known.items,
            known.events,
            torch.Generator().manual_seed(seed),
            checkpoints=Checkpoints(),
        )
        embedding = replace(apart, model=model)
        vector_ND = item_vectors(embedding)
        queries, vector_SD = suggestions(known, vector_ND)
        found[f"items, {alignment}"] = cross_ndcg(_engine(embedding, known.items, vector_ND), asked)
        found[f"queries, {alignment}"] = cross_ndcg(_engine(embedding, queries, vector_SD), searched)
    return found


def _engine(embedding: Embedding, items: pa.Table, vector_ND: Floats) -> TwoTower:
    """Return the engine as a shard opens it, but for the exported program."""
    return TwoTower(
        items=ForwardIndex(items),
        encoder=embedding.encoder,
        vectors=query_vectors(embedding),
        ann=AnnIndex(untuned_index(vector_ND)),
    )


def _popular(dataset: Dataset, asked: list[Crossing]) -> float:
    known = snapshot(dataset, known_until_ms(dataset))
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        destination = Destination(root=Path(folder), prefix="shops", version="1")
        channel = ChannelRecipe(name="popular", source="popular", top=4_000)
        model = destination.model(channel.name)
        contexts = [crossing.context for crossing in asked[:4]]
        write_channel(model, contents_of(channel, known), known, contexts, destination.root)
        engine = open_lookup_table(open_bundle(destination.root / model.model / model.version), "cpu")
        return cross_ndcg(engine, asked)
