"""A part of `make bench-quality`: medoids of a user's interests beside one average of them (PinnerSage, R8).

Over the recipe `pinnersage`, items of Amazon Beauty, and over online_retail by vectors like those of
`avito`, trained on what lies before the test. Each user who then takes something new asks once, for lists of
several lengths: 400 is PinnerSage's, but it asked among billions, not thousands. Lists leave out what the
user has met. Recall is the share of the new items that a list holds, relevance the share of them with a
cosine of .8 or more to something in it. Users of several clusters have mixed interests.

Legend: U = users, H = events, K = places of a list, R = items taken later, N = items, D = width of a vector.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.ann_index import AnnIndex
from shards.candidates import Floats
from shards.forward_index import ForwardIndex
from shards.history_rows import history_rows
from shards.interests import interests_of, unit
from shards.item_vectors import ItemVectors, ItemVectorsParams
from shards.lookups import look_up_each
from shards.search_context import SearchContext
from shards.tokenizer import Tokenizer
from tests.bench.quality_run import QualityRun
from tests.bench.result import Check, at_least
from tests.bench.spread import mean_of, spread_of_each
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset
from training.evaluation.next_items import NextItems, next_items, sampled
from training.item_index import untuned_index
from training.item_vectors import train_item_vectors
from training.recipe import Recipe
from training.recipes import RECIPES
from training.snapshot import snapshot
from training.trainer import Seeded

PLACES = (20, 50, 100, 400)
"""How long lists are."""
ALIKE = 0.8
ASKED, QUICK_ASKED = 4_000, 300
"""Users, a fixed sample."""
TAUGHT, QUICK_TAUGHT = 180_000, 20_000
"""Events, the newest."""

Rows = NDArray[np.int64]


def medoids(run: QualityRun) -> tuple[dict[str, Any], list[Check]]:
    """Recall and relevance of three seeds, of users with one interest and with several."""
    beauty, shop = RECIPES["pinnersage"], _shop(RECIPES["avito"])
    runs = {
        recipe.dataset: [_measured(run, recipe, seed) for seed in range(run.seeds)]
        for recipe in (beauty, shop)
    }
    found = runs[beauty.dataset]
    means = {name: mean_of([each[name] for each in found]) for name in found[0]}
    figures = {
        "seeds": run.seeds,
        "places": list(PLACES),
        "figures": {name: spread_of_each(each) for name, each in runs.items()},
    }
    return figures, [
        at_least(
            f"medoids against one average, {figure} at {places}, mixed interests",
            means[f"mixed, medoids, {figure} at {places}"],
            means[f"mixed, average, {figure} at {places}"],
        )
        for figure, places in (("recall", PLACES[-1]), ("relevance", PLACES[0]), ("relevance", PLACES[-1]))
    ]


def _shop(recipe: Recipe) -> Recipe:
    """Return the recipe of the shop with vectors that clusters can be made of: of unit length, spread out."""
    pairs, beauty = recipe.item_pairs, RECIPES["pinnersage"]
    assert pairs is not None
    channel = replace(recipe.channels[0], interests=beauty.channels[0].interests)
    training = replace(pairs, model=replace(pairs.model, output="unit", temperature=0.07), hardest=0)
    return replace(recipe, channels=(channel,), item_pairs=training)


def _measured(run: QualityRun, recipe: Recipe, seed: int) -> dict[str, float]:
    dataset = run.load(recipe.dataset_name)
    asked = next_items(dataset, "test", history_limit=recipe.history_limit)
    asked = sampled(asked, QUICK_ASKED if run.quick else ASKED)
    engine = _engine(recipe, dataset, QUICK_TAUGHT if run.quick else TAUGHT, seed)
    found = [judged(engine, user) for user in asked]
    return means_of([each for each in found if each is not None])


def _engine(recipe: Recipe, dataset: Dataset, taught: int, seed: int) -> ItemVectors:
    """Return the engine as a shard opens it, by vectors trained on the newest events before the test."""
    known = snapshot(dataset, known_until_ms(dataset))
    known = replace(known, events=known.events.slice(max(0, len(known.events) - taught)))
    tokenizer = None
    if recipe.reads_texts:
        titles = known.items.column("title").to_pylist()
        tokenizer = Tokenizer.train(titles, vocab_size=recipe.features.vocab_size)
    vectors = train_item_vectors(recipe, known, tokenizer, seeded=Seeded(seed=seed))
    return ItemVectors(
        items=ForwardIndex(known.items),
        ann=AnnIndex(untuned_index(unit(vectors.vector_ND))),
        params=ItemVectorsParams(interests=recipe.channels[0].interests),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What a user's lists are worth, by who asked for them: "medoids, recall at 20"."""

    clusters: int
    figures: Mapping[str, float]


def judged(engine: ItemVectors, user: NextItems) -> Judged | None:
    """Return what the lists are worth; None for a user who met nothing within the window."""
    params = engine.params.interests
    assert params is not None
    history = history_rows(user.context, engine.items.lookup)
    interests = interests_of(history, engine.ann.vectors_at, params)
    relevant_R = engine.items.rows_of(sorted(user.relevant))
    relevant_R = relevant_R[relevant_R >= 0]
    if not len(interests.medoid_C) or not len(relevant_R):
        return None
    allowed_N = np.ones(len(engine.items), np.bool_)
    allowed_N[history.rows] = False
    asking = {
        "medoids": engine.ann.vectors_at(engine.asking(user.context)),
        "average": average_of(engine, user.context),
    }
    generator = np.random.default_rng(len(history.rows))
    drawn = generator.choice(np.flatnonzero(allowed_N), PLACES[-1], replace=False)
    figures: dict[str, float] = {}
    for places in PLACES:
        lists = {
            name: look_up_each(engine.ann, vector_HD, places, allowed_N)[1]
            for name, vector_HD in asking.items()
        }
        lists["random"] = drawn[:places]
        for name, row_K in lists.items():
            figures[f"{name}, recall at {places}"] = float(np.isin(relevant_R, row_K).mean())
            figures[f"{name}, relevance at {places}"] = _relevance(engine, relevant_R, row_K)
    return Judged(clusters=len(interests.medoid_C), figures=figures)


def _relevance(engine: ItemVectors, relevant_R: Rows, row_K: Rows) -> float:
    """Return the share of the items taken that something in the list is like."""
    cosine_RK = engine.ann.vectors_at(relevant_R) @ engine.ann.vectors_at(row_K).T
    return float((cosine_RK.max(axis=1) >= ALIKE).mean())


def average_of(engine: ItemVectors, context: SearchContext) -> Floats:
    """Return one vector [1, D]: the mean of what was met, fading as the importance of clusters does."""
    params, history = engine.params.interests, history_rows(context, engine.items.lookup)
    assert params is not None
    recent_H = history.ages_days <= params.window_days
    weight_H = np.exp(-params.decay_per_day * history.ages_days[recent_H])
    vector_HD = unit(engine.ann.vectors_at(history.rows[recent_H]))
    return unit((weight_H[:, np.newaxis] * vector_HD).sum(axis=0, keepdims=True).astype(np.float32))


def means_of(users: Sequence[Judged]) -> dict[str, float]:
    """Return the means of all users, of those with one cluster and of those with several."""
    groups = {
        "all": users,
        "one interest": [each for each in users if each.clusters == 1],
        "mixed": [each for each in users if each.clusters > 1],
    }
    found = {f"{group}, users": float(len(members)) for group, members in groups.items()}
    for group, members in groups.items():
        for name in users[0].figures if members else ():
            found[f"{group}, {name}"] = mean_of([each.figures[name] for each in members])
    return found
