"""A part of `make bench-quality`: what a model of ids gains by learning once a day, and every ten minutes.

MovieLens-100K, whose users come once, stay for an hour or so and rate film after film. A model is trained on
all before the test and then lives through the test day by day; each like is asked for a moment before it
happens, among the films that its user had not rated. Nothing it is asked about has been learned from.

`python -m tests.bench.quality_updates` chooses the rates, on the valid split by models that know nothing
later.
"""

import copy
import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import Tensor

from deploy.folders import cache_dir
from shards.forward_index import ForwardIndex
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from tests.bench.spread import mean_of, spread_of_each
from training.datasets import movielens
from training.datasets.splits import split_of
from training.datasets.statistics import DAY_MS
from training.datasets.tables import Dataset
from training.embedding import Embedding, examples_of, train_embedding
from training.models.two_tower import TwoTower
from training.overrides import with_overrides
from training.recipe import Recipe
from training.recipes import RECIPES
from training.retrieval import RetrievalSet, best_scores, encoded
from training.run import Run
from training.snapshot import Requests, snapshot
from training.trainer import Seeded
from training.updates import go_on

UPDATE_MS = 10 * 60_000
LAST_MS = 8 * 3_600_000
"""How much of a day, in UTC, counts as its last hours."""

MODELS = ("none", "daily", "incremental")
"""Never trained again; an epoch every night; that, and tables that learn every ten minutes."""

_QUICK_DAYS, _QUICK_QUERIES = 2, 5_000
_TRIED = {
    "updates.full.learning_rate": ("0.0001", "0.0003", "0.001"),
    "updates.tables.learning_rate": ("0.03", "0.1", "0.3"),
    "updates.tables.epochs": ("1", "2", "4"),
}
"""In this order, each with the best of those before."""

Ranks = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """Requests of some days after a model was trained, and what must not be found for each."""

    start_ms: int
    times_ms: NDArray[np.int64]
    met: Tensor
    """The items that the user had rated by then."""
    new: NDArray[np.bool_]
    """Whether the user had done nothing before that day."""
    examples: RetrievalSet

    def span(self, start_ms: int, end_ms: int) -> slice:
        """Return the requests from one moment to another."""
        first, last = np.searchsorted(self.times_ms, [start_ms, end_ms]).tolist()
        return slice(first, last)

    def days(self) -> Iterator[int]:
        """Give the moment at which each day begins, in UTC; the first one has begun already."""
        first_ms = self.start_ms // DAY_MS * DAY_MS
        return iter(range(first_ms, int(self.times_ms[-1]) + 1, DAY_MS))


def updates(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Return how well the three models know what is liked in the last hours of each day."""
    recipe, dataset = RECIPES["movielens_updates"], run.load("movielens")
    split = split_of(dataset.queries)
    found = []
    for seed in range(run.seeds):
        embedding, period = trained(recipe, dataset, split.test_from_ms, 1 << 62, seed, quick=run.quick)
        found.append(figures_of(period, lived(recipe, embedding, period, seed)))
    figures = spread_of_each(found)
    gain = {name: [each[f"{name}, MRR, last hours"] for each in found] for name in MODELS}
    checks = [
        at_least(
            "updates, MRR of the last hours, daily against none",
            mean_of(gain["daily"]),
            mean_of(gain["none"]),
        ),
        at_least(
            "updates, MRR of the last hours, incremental against daily",
            mean_of(gain["incremental"]),
            mean_of(gain["daily"]),
        ),
    ]
    return {"seeds": run.seeds, **figures}, checks


def trained(
    recipe: Recipe, dataset: Dataset, now_ms: int, until_ms: int, seed: int, *, quick: bool = False
) -> tuple[Embedding, Period]:
    """Return a model of what was known at a moment, and what came until another."""
    known = snapshot(dataset, now_ms)
    if quick:
        recipe = replace(recipe, two_tower_queries=_QUICK_QUERIES)
        until_ms = min(until_ms, now_ms + _QUICK_DAYS * DAY_MS)
    run = Run(recipe=recipe, dataset=dataset, seed=seed, gate=lambda *_: True)
    embedding = train_embedding(
        recipe,
        known,
        run.tokenizer(known),
        run.requests_until(now_ms),
        seeded=Seeded(seed=seed),
        epochs=recipe.two_tower.fit.epochs,
    )
    asked = run.requests_between(now_ms, until_ms, newest=1 << 62)
    return embedding, _period(embedding, ForwardIndex(known.items), asked, now_ms)


def _period(embedding: Embedding, items: ForwardIndex, asked: Requests, start_ms: int) -> Period:
    met = torch.zeros(len(asked), len(items), dtype=torch.bool)
    new = np.zeros(len(asked), np.bool_)
    for q, context in enumerate(asked.contexts):
        history = context.user.history
        met[q, torch.from_numpy(items.rows_of(history.item_ids))] = True
        today_ms = context.now_ms // DAY_MS * DAY_MS
        new[q] = not history.timestamps_ms or history.timestamps_ms[0] >= today_ms
    return Period(
        start_ms=start_ms,
        times_ms=np.array([context.now_ms for context in asked.contexts], np.int64),
        met=met,
        new=new,
        examples=examples_of(embedding.encoder, items, asked),
    )


def lived(recipe: Recipe, embedding: Embedding, period: Period, seed: int) -> dict[str, Ranks]:
    """Return by model the rank of each like, counted from 0, at the moment before it happened [Q]."""
    assert isinstance(embedding.model, TwoTower)
    generator = torch.Generator().manual_seed(seed)
    daily, rank_Q = copy.deepcopy(embedding.model), defaultdict[str, list[Ranks]](list)

    def learn(model: TwoTower, span: slice, *, tables_only: bool) -> None:
        if span.start < span.stop:
            part = period.examples.part(span.start, span.stop)
            go_on(
                model,
                recipe.two_tower,
                recipe.updates,
                part,
                embedding.item,
                generator,
                tables_only=tables_only,
            )

    for day_ms in period.days():
        today = period.span(day_ms, day_ms + DAY_MS)
        rank_Q["none"].append(_ranks(embedding.model, embedding, period, today))
        rank_Q["daily"].append(_ranks(daily, embedding, period, today))
        incremental = copy.deepcopy(daily)
        for slot_ms in range(day_ms, day_ms + DAY_MS, UPDATE_MS):
            slot = period.span(slot_ms, slot_ms + UPDATE_MS)
            rank_Q["incremental"].append(_ranks(incremental, embedding, period, slot))
            learn(incremental, slot, tables_only=True)
        learn(daily, today, tables_only=False)
    return {name: np.concatenate(parts) for name, parts in rank_Q.items()}


@torch.inference_mode()
def _ranks(model: TwoTower, embedding: Embedding, period: Period, asked: slice) -> Ranks:
    """Return how many items that the user had not met score higher than the one that was liked [Q]."""
    if asked.start == asked.stop:
        return np.empty(0, np.int64)
    part = period.examples.part(asked.start, asked.stop)
    score_QN = best_scores(encoded(model, part), model.encode_item(embedding.item))
    own_Q1 = score_QN.gather(1, part.row_Q.unsqueeze(1))
    return ((score_QN > own_Q1) & ~period.met[asked]).sum(dim=1).numpy()


def figures_of(period: Period, ranks: dict[str, Ranks]) -> dict[str, float]:
    """Return MRR and R@100 of each model: in the last hours, in whole days, and of who came that day."""
    last_Q = period.times_ms % DAY_MS >= DAY_MS - LAST_MS
    parts = {
        "last hours": last_Q,
        "whole days": np.ones_like(last_Q),
        "last hours, new users": last_Q & period.new,
    }
    return {f"likes, {part}": float(mask_Q.sum()) for part, mask_Q in parts.items()} | {
        f"{name}, {metric}, {part}": value
        for (name, rank_Q), (part, mask_Q) in itertools.product(ranks.items(), parts.items())
        for metric, value in _metrics(rank_Q[mask_Q]).items()
    }


def _metrics(rank_Q: Ranks) -> dict[str, float]:
    return {"MRR": float((1 / (rank_Q + 1)).mean()), "R@100": float((rank_Q < 100).mean())}


def main() -> None:
    """Choose one setting after the other by the valid split, which comes before the test."""
    console, recipe = Console(soft_wrap=True), RECIPES["movielens_updates"]
    dataset = movielens.load(cache_dir())
    split = split_of(dataset.queries)
    embedding, period = trained(recipe, dataset, split.valid_from_ms, split.test_from_ms, seed=0)
    best: tuple[str, ...] = ()
    for path, values in _TRIED.items():
        judged = "daily" if ".full." in path else "incremental"
        reached = {}
        for value in values:
            tried = with_overrides(recipe, (*best, f"{path}={value}"))
            figures = figures_of(period, lived(tried, embedding, period, seed=0))
            reached[value] = figures[f"{judged}, MRR, last hours"]
            console.print(f"{path}={value}", {name: round(found, 4) for name, found in figures.items()})
        best = (*best, f"{path}={max(values, key=reached.__getitem__)}")
    console.print("chosen:", *best)


if __name__ == "__main__":
    main()
