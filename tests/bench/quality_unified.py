"""A part of `make bench-quality`: what each part of Etsy's unified embedding adds to recall (R5).

Over online_retail (proxy queries): the recipe `etsy` without hydration, which has a part of its own, and the
same without one of its parts after the other, learn from the newest queries before the test split and are
asked the newest of it. "Abroad" are the queries of users outside the United Kingdom, where most users are.
The recipe's index, over hydrated vectors, is set beside comparing all of them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from shards.ann_index import AnnIndex, set_knobs
from shards.features import Feature
from shards.forward_index import ForwardIndex
from shards.tokenizer import Tokenizer
from tests.bench.ablations import without_features
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least, at_most
from tests.bench.spread import mean_of, spread_of_each
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset
from training.embedding import Embedding, examples_of, train_embedding
from training.hydration import best_weights, quantiles
from training.item_index import build
from training.models.hydrated import Hydrated
from training.recipe import Recipe
from training.recipes import RECIPES
from training.recipes.etsy import NEIGHBOURS, PLACE
from training.retrieval import RetrievalSet, encoded
from training.snapshot import Requests, Snapshot, requests_between, snapshot
from training.trainer import Seeded
from training.weighted_sources import SourceWeights

EPOCHS, TAUGHT, TESTED = 4, 25_000, 3_000
QUICK_EPOCHS, QUICK_TAUGHT, QUICK_TESTED = 1, 4_000, 300
"""Queries, always the newest."""
WEIGHED = 1_000
"""The queries between both, by which hydration is weighed for the index, with items' numbers from before."""
DEPTHS = (10, 100)
HOME = "United Kingdom"

Change = Callable[[Recipe], Recipe]


def _model(**changes: object) -> Change:
    def changed(recipe: Recipe) -> Recipe:
        model = replace(recipe.two_tower.model, **changes)  # type: ignore[arg-type]
        return replace(recipe, two_tower=replace(recipe.two_tower, model=model))

    return changed


def _sources(sources: SourceWeights | None) -> Change:
    return lambda recipe: replace(recipe, two_tower=replace(recipe.two_tower, sources=sources))


def _without(features: Sequence[Feature]) -> Change:
    return lambda recipe: without_features(recipe, *(feature.name for feature in features))


VARIANTS: Mapping[str, Change] = {
    "whole": lambda recipe: recipe,
    "without a history": _model(history="none"),
    "history by attention": _model(history="attention"),
    "without location": _without(PLACE),
    "without the title transformer": _model(title=""),
    "without neighbours": _without(NEIGHBOURS),
    "uniform negatives alone": _sources(SourceWeights(in_batch=0, hard=0)),
    "one loss, mixed negatives": _sources(None),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """What models learn from and what they are asked, before and after a moment."""

    known: Snapshot
    tokenizer: Tokenizer
    taught: Requests
    weighed: Requests
    earlier: pa.Table
    """The items as of the first of those that weigh."""
    tested: Requests
    epochs: int

    @classmethod
    def of(cls, recipe: Recipe, dataset: Dataset, now_ms: int, until_ms: int, *, quick: bool) -> "Task":
        """Return the task to learn from what lies before `now_ms` and to answer what follows."""
        known = snapshot(dataset, now_ms).with_neighbours(recipe.item_graph, dataset.users)
        words = [*known.items.column("title").to_pylist(), *known.queries.column("query").to_pylist()]
        limit = recipe.history_limit
        newest, last = (QUICK_TAUGHT, QUICK_TESTED) if quick else (TAUGHT, TESTED)
        before = requests_between(dataset, 0, now_ms, newest=newest + WEIGHED, history_limit=limit)
        return cls(
            known=known,
            tokenizer=Tokenizer.train(words, vocab_size=recipe.features.vocab_size),
            taught=before[:-WEIGHED],
            weighed=before[-WEIGHED:],
            earlier=snapshot(dataset, before.contexts[-WEIGHED].now_ms).items,
            tested=requests_between(dataset, now_ms, until_ms, newest=last, history_limit=limit),
            epochs=QUICK_EPOCHS if quick else EPOCHS,
        )

    def trained(self, recipe: Recipe, seed: int) -> Embedding:
        """Return the recipe's model."""
        return train_embedding(
            recipe, self.known, self.tokenizer, self.taught, seeded=Seeded(seed=seed), epochs=self.epochs
        )

    def examples(self, embedding: Embedding, requests: Requests) -> RetrievalSet:
        """Return requests as the model takes them."""
        return examples_of(embedding.encoder, ForwardIndex(self.known.items), requests)

    def figures(self, embedding: Embedding) -> dict[str, float]:
        """Return recall, of all that is asked and of what is asked abroad."""
        examples = self.examples(embedding, self.tested)
        with torch.inference_mode():
            item_ND = embedding.model.encode_item(embedding.item)
            score_QN = encoded(embedding.model, examples) @ item_ND.T
        own_Q1 = score_QN.gather(1, examples.row_Q.unsqueeze(1))
        rank_Q = (score_QN > own_Q1).sum(dim=1)
        asked = [context.user.features.get("country", HOME) for context in self.tested.contexts]
        abroad_Q = torch.tensor([country != HOME for country in asked])
        parts = {"": rank_Q, ", abroad": rank_Q[abroad_Q]}
        return {f"R@{k}{part}": _share(ranks < k) for k in DEPTHS for part, ranks in parts.items()}

    def index_figures(self, recipe: Recipe, embedding: Embedding, seed: int) -> dict[str, float]:
        """Return the recall of hydrated vectors, compared with all of them and by the recipe's index."""
        (channel,), hydration = recipe.channels, recipe.hydration
        assert hydration is not None
        late, early = (
            quantiles(ForwardIndex(items).columns(hydration.columns), hydration.columns)
            for items in (self.known.items, self.earlier)
        )
        weighed, tested = self.examples(embedding, self.weighed), self.examples(embedding, self.tested)
        with torch.inference_mode():
            item_ND = embedding.model.encode_item(embedding.item)
            query_QD = encoded(embedding.model, weighed)
            weight_F = best_weights(hydration, query_QD, weighed.row_Q, item_ND, early, seed=seed)
            full = Hydrated(embedding.model, late, weight_F)  # type: ignore[arg-type]
            vector_ND = np.ascontiguousarray(full.encode_item(embedding.item).numpy())
            vector_QD = encoded(full, tested).numpy()
        quantised = build(vector_ND, channel.index)
        set_knobs(quantised, channel.ann)
        indexes = {"exact": build(vector_ND, "Flat"), "quantised": quantised}
        found = {
            name: np.stack([AnnIndex(index).search(vector_D[None], max(DEPTHS))[1] for vector_D in vector_QD])
            for name, index in indexes.items()
        }
        row_Q1 = tested.row_Q.numpy()[:, None]
        return {
            f"R@{k}, {name}": float((rows_QK[:, :k] == row_Q1).any(axis=1).mean())
            for k in DEPTHS
            for name, rows_QK in found.items()
        }


def unified(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Recall of the whole and without each part, and what its index loses."""
    recipe = RECIPES["etsy"]
    dataset = run.load(recipe.dataset_name)
    task = Task.of(recipe, dataset, known_until_ms(dataset), 1 << 62, quick=run.quick)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    indexed = []
    for seed in range(run.seeds):
        for name, change in VARIANTS.items():
            embedding = task.trained(change(recipe), seed)
            found[name].append(task.figures(embedding))
            if name == "whole":
                indexed.append(task.index_figures(recipe, embedding, seed))
    means = {name: {k: mean_of([one[k] for one in runs]) for k in runs[0]} for name, runs in found.items()}
    figures = {
        "seeds": run.seeds,
        "epochs": task.epochs,
        "queries": {"taught": len(task.taught), "tested": len(task.tested)},
        "variants": {name: spread_of_each(runs) for name, runs in found.items()},
        "index": spread_of_each(indexed),
    }
    return figures, [*_checks(means), _index_check(indexed)]


def _checks(means: Mapping[str, Mapping[str, float]]) -> list[Check]:
    whole = means["whole"]
    claimed = {"without a history": "R@10", "without location": "R@10, abroad"}
    return [
        at_least(f"whole against {name}, {figure}", whole[figure], means[name][figure])
        for name, figure in claimed.items()
    ]


def _index_check(indexed: list[dict[str, float]]) -> Check:
    exact = mean_of([one["R@100, exact"] for one in indexed])
    quantised = mean_of([one["R@100, quantised"] for one in indexed])
    return at_most("share of R@100 that the quantised index loses", 1.0 - quantised / exact, 0.01)


def _share(true_Q: Tensor) -> float:
    return float(true_Q.double().mean())
