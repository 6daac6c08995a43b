"""A part of `make bench-quality`: how diverse lists are that clusters of items share, and at what cost (R6).

Over the recipe `ebay`: trained on what lies before the test split of MovieLens-100K, asked for the next liked
film, without what the user has rated before. One cluster is plain search. Beside it the same
model without what others viewed and left among its negatives.

Legend: Q = queries, K = places of a list, N = items, D = width of a vector.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from shards.ann_index import AnnIndex
from shards.candidates import Floats
from shards.forward_index import ForwardIndex
from shards.item_clusters import ClusteredIndex, ItemClusters
from shards.lookups import VectorIndex
from tests.bench.quality_negatives import EPOCHS, Task
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least, at_most
from tests.bench.spread import mean_of, spread_of_each
from training.embedding_bundle import item_vectors
from training.item_clusters import cluster
from training.item_index import untuned_index
from training.recipes import RECIPES
from training.retrieval import encoded, recall_at

PLACES = 20
SPREADS = (1, 2, 4, 8, 16)
"""Clusters that share a list."""
RISING = (1, 4, 8, 16)
"""Those that are held to more and more diversity: plain search reaches more than two clusters already."""
ASKED, QUICK_ASKED = 3_000, 300
"""Queries, the newest."""
KEPT = 0.6
"""The share of plain search's recall that the recipe's own number of clusters has to keep."""
_PLAIN = "two_tower.hard.per_positive=0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What lists are made for and judged by."""

    allowed: NDArray[np.bool_]
    """What each user has not rated [Q, N]."""
    taken: NDArray[np.int64]
    """The row of the film that each query led to [Q]."""
    genres: NDArray[np.bool_]
    """Which genres the films have [N, G]."""


def clusters(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Recall and diversity of lists of three seeds, by the clusters that share them."""
    recipe = RECIPES["ebay"]
    task = Task.of(recipe, run.load(recipe.dataset_name))
    newest = QUICK_ASKED if run.quick else ASKED
    task = replace(task, asked=task.asked[-newest:])
    asked = _asked(task)
    runs = [_measured(task, asked, seed, 1 if run.quick else EPOCHS) for seed in range(run.seeds)]
    means = {name: mean_of([each[name] for each in runs]) for name in runs[0]}
    served = recipe.channels[0].nearest_clusters
    figures = {
        "seeds": run.seeds,
        "queries": len(task.asked),
        "clusters": recipe.channels[0].clusters,
        "places": PLACES,
        "genre distance of two films": _apart(_overlap(asked.genres)),
        "figures": spread_of_each(runs),
    }
    rising = [
        at_least(
            f"distance within lists, {more} clusters against {few}",
            means[f"{more}, distance"],
            means[f"{few}, distance"],
        )
        for few, more in pairwise(RISING)
    ]
    most, genres = RISING[-1], "genre distance"
    rising.append(
        at_least(f"{genres}, {most} clusters against 1", means[f"{most}, {genres}"], means[f"1, {genres}"])
    )
    kept = means[f"{served}, recall"] / means["1, recall"]
    return figures, [
        *rising,
        at_least(f"{served} clusters, share of plain search's R@{PLACES} that is kept", kept, KEPT),
        at_most(f"{served} clusters, R@{PLACES} over plain search's: diversity has a cost", kept, 1.0),
    ]


def _asked(task: Task) -> Asked:
    items = ForwardIndex(task.known.items)
    allowed_QN = np.ones((len(task.asked), len(items)), np.bool_)
    for allowed_N, context in zip(allowed_QN, task.asked.contexts, strict=True):
        rows = items.rows_of(context.user.history.item_ids)
        allowed_N[rows[rows >= 0]] = False
    genres = task.known.items.column("genres").to_pylist()
    names = sorted({genre for each in genres for genre in each})
    return Asked(
        allowed=allowed_QN,
        taken=items.rows_of(task.asked.item_ids),
        genres=np.array([[name in each for name in names] for each in genres]),
    )


def _measured(task: Task, asked: Asked, seed: int, epochs: int) -> dict[str, float]:
    channel = task.recipe.channels[0]
    without = task.trained((_PLAIN,), seed, epochs)
    embedding = task.trained((), seed, epochs)
    examples = task.examples(embedding)
    with torch.inference_mode():
        vector_QD = encoded(embedding.model, examples).numpy()
        found = {
            "R@100": recall_at(embedding.model, examples, embedding.item, 100),
            "without what others left, R@100": recall_at(without.model, examples, without.item, 100),
        }
    vector_ND = item_vectors(embedding)
    index = AnnIndex(untuned_index(vector_ND))
    made = cluster(vector_ND, channel.clusters)
    for spread in SPREADS:
        ann = ClusteredIndex(index=index, clusters=made, asked=spread) if spread > 1 else index
        figures = _figures(ann, vector_QD, asked, vector_ND, made)
        found |= {f"{spread}, {name}": value for name, value in figures.items()}
    return found


def _figures(
    ann: VectorIndex, vector_QD: Floats, asked: Asked, vector_ND: Floats, made: ItemClusters
) -> dict[str, float]:
    """Return the means over queries of recall and of how much the items of a list differ."""
    lists = [
        ann.search(vector_D[np.newaxis], PLACES, allowed_N)[1]
        for vector_D, allowed_N in zip(vector_QD, asked.allowed, strict=True)
    ]
    row_QK = np.stack(lists)
    return {
        "recall": float((row_QK == asked.taken[:, np.newaxis]).any(axis=1).mean()),
        "distance": float(np.mean([_apart(vector_ND[row_K] @ vector_ND[row_K].T) for row_K in row_QK])),
        "genre distance": float(np.mean([_apart(_overlap(asked.genres[row_K])) for row_K in row_QK])),
        "clusters": float(np.mean([len(np.unique(made.cluster_N[row_K])) for row_K in row_QK])),
    }


def _apart(alike_KK: NDArray[np.floating[Any]]) -> float:
    """Return 1 minus the mean likeness of two different items."""
    size = len(alike_KK)
    return float(1 - (alike_KK.sum() - np.trace(alike_KK)) / (size * (size - 1)))


def _overlap(genre_KG: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return of each two items the share of their genres that both have [K, K]; 1 for two without any."""
    both_KK = (genre_KG[:, np.newaxis] & genre_KG).sum(axis=2)
    any_KK = (genre_KG[:, np.newaxis] | genre_KG).sum(axis=2)
    return np.where(any_KK > 0, both_KK / np.maximum(any_KK, 1), 1.0)
