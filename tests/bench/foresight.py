"""How much better the cascade's page could be: a ranker that is told the future, for `make bench-cascade`.

Trees learn from the test itself, visit by visit in folds, to put the cascade's first candidates in order by
all that it says of them. Told the future, they are given besides how often each item is taken in the hours,
days and weeks after the search, by newcomers too, and what else its words lead to, whenever they are asked.
Nobody who searches can know that: an aim which they miss by far asks for more than the searches tell.

Legend: Q = queries, C = candidates, K = features, E = events.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from deploy.gate_rule import gate_rule
from deploy.held_out import HeldOut
from deploy.known_recipes import recipe_of
from deploy.refreshing import run_of
from deploy.workspace import Workspace
from training.datasets.tables import Dataset, row_numbers, timestamps_ms
from training.evaluation.judgements import Judged
from training.evaluation.offline import retrieve, stages
from training.evaluation.report import RANKED, Ranks, as_json, rank_of, summarise
from training.refreshing import stretches

DEPTH, FOLDS = 60, 5
DAY_MS = 86_400_000
REACHES_DAYS = (0.125, 0.5, 1.0, 3.0, 7.0, 30.0)
"""How far before and after a search takers are counted."""
OWN, TOLD = "trees on the cascade's columns", "trees told the future"
_TREES = {
    "objective": "lambdarank",
    "lambdarank_truncation_level": 12,
    "learning_rate": 0.05,
    "min_data_in_leaf": 50,
    "feature_fraction": 0.6,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": 1,
    "seed": 0,
    "deterministic": True,
    "verbose": -1,
}
_ROUNDS = 250

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A search, the first items of the cascade's page, and by name what every stage says of each, [C]."""

    judged: Judged
    item_ids: tuple[str, ...]
    columns: dict[str, Floats]

    @property
    def visit(self) -> tuple[str, int]:
        """Whose visit the search belongs to, and when: what is taken there is no future of its own."""
        return self.judged.context.user.user_id, self.judged.context.now_ms


def foresight(workspace: Workspace, data_dir: Path, days: float) -> list[dict[str, Any]]:
    """Return the figures of the cascade and of both trees, of all test queries and by group of users."""
    held_out = HeldOut(data_dir=data_dir)
    release = held_out.release(workspace)
    data, judged = held_out.queries(release, workspace)
    run = run_of(recipe_of(release.surface, workspace), data, release, workspace)
    gate = gate_rule(release, workspace.models_dir)
    judged.sort(key=lambda query: query.context.now_ms)
    times_ms = [query.context.now_ms for query in judged]
    asked: list[Asked] = []
    for stretch in stretches(run, release, workspace.models_dir, times_ms, days):
        for query in judged[stretch.searches]:
            retrieved = retrieve(stretch.cascade, query.context)
            gate_open = gate(query.context, retrieved)
            page = stages(stretch.cascade, query.context, retrieved, gate_open=gate_open)[RANKED].first(DEPTH)
            columns = {name: column.astype(np.float64) for name, column in page.columns.items()}
            asked.append(Asked(judged=query, item_ids=page.item_ids, columns=columns))
    own = _own_features(asked)
    told = [np.hstack(pair) for pair in zip(own, _future_features(asked, data), strict=True)]
    pages = {
        RANKED: [query.item_ids for query in asked],
        OWN: _ordered(asked, own),
        TOLD: _ordered(asked, told),
    }
    ranks = Ranks(
        query_ids=tuple(query.judged.query_id for query in asked),
        with_history=np.array([bool(query.judged.context.user.history.item_ids) for query in asked]),
        by_ranking={name: _ranks(asked, found) for name, found in pages.items()},
    )
    return as_json(summarise(ranks))


def _own_features(asked: Sequence[Asked]) -> list[Floats]:
    """Return for each search [C, K]: every stage's columns, NaN where a channel was not asked; the place."""
    names = sorted({name for query in asked for name in query.columns})

    def features(query: Asked) -> Floats:
        count = len(query.item_ids)
        nothing = np.full(count, np.nan)
        return np.stack([np.arange(count), *(query.columns.get(name, nothing) for name in names)], axis=1)

    return [features(query) for query in asked]


def _future_features(asked: Sequence[Asked], data: Dataset) -> list[Floats]:
    """Return for each search [C, K]: takers of each item before and after it, and what its words led to."""
    items = data.items.column("item_id")
    sizes = [len(query.item_ids) for query in asked]
    item_N = row_numbers(pa.chunked_array([[i for query in asked for i in query.item_ids]]), items)
    now_N = np.repeat([query.judged.context.now_ms for query in asked], sizes)
    item_E, time_E = row_numbers(data.events.column("item_id"), items), timestamps_ms(data.events)
    user_E = row_numbers(data.events.column("user_id"), data.users.column("user_id"))
    first_U = np.full(len(data.users), np.iinfo(np.int64).max)
    np.minimum.at(first_U, user_E, time_E)
    new_E = time_E == first_U[user_E]
    counts = [
        taken_nearby(item_E[rows_E], time_E[rows_E], item_N, now_N)
        for rows_E in (np.ones(len(item_E), np.bool_), new_E)
    ]
    words_N = _led_to(asked, data, item_N)
    return np.split(np.hstack([*counts, words_N[:, None]]), np.cumsum(sizes)[:-1])


def taken_nearby(item_E: Ints, time_E: Ints, item_N: Ints, now_N: Ints) -> Floats:
    """Return how often each item was taken so long before the search and so long after it, [N, K].

    Nothing of the moment of the search itself counts: its own visit has that time.
    """
    span = int(max(time_E.max(), now_N.max()) - min(time_E.min(), now_N.min()) + 100 * DAY_MS)
    start = int(min(time_E.min(), now_N.min())) - 50 * DAY_MS
    key_E = np.sort(item_E * span + time_E - start)
    key_N = item_N * span + now_N - start

    def before(shift_ms: int) -> Ints:
        return np.searchsorted(key_E, key_N + shift_ms)

    reaches = [round(days * DAY_MS) for days in REACHES_DAYS]
    past = [before(0) - before(-reach) for reach in reaches]
    future = [before(reach) - before(1) for reach in reaches]
    return np.stack([*past, *future], axis=1).astype(np.float64)


def _led_to(asked: Sequence[Asked], data: Dataset, item_N: Ints) -> Floats:
    """Return how many other searches for the same words led to each candidate, whenever they were, [N]."""
    items, texts = data.items.column("item_id"), pc.unique(data.queries.column("query"))
    pair_E = row_numbers(data.queries.column("query"), pa.chunked_array([texts])) * len(items)
    key_E = np.sort(pair_E + row_numbers(data.queries.column("item_id"), items))
    sizes = [len(query.item_ids) for query in asked]
    text_Q = row_numbers(
        pa.chunked_array([[query.judged.context.query for query in asked]]), pa.chunked_array([texts])
    )
    key_N = np.repeat(text_Q, sizes) * len(items) + item_N
    found_N = np.searchsorted(key_E, key_N, side="right") - np.searchsorted(key_E, key_N)
    own_N = np.concatenate([_relevant(query) for query in asked])
    other_N: Floats = np.subtract(found_N, own_N, dtype=np.float64)
    return other_N


def _relevant(query: Asked) -> NDArray[np.bool_]:
    return np.array([item_id == query.judged.relevant for item_id in query.item_ids])


def _ordered(asked: Sequence[Asked], features: Sequence[Floats]) -> list[tuple[str, ...]]:
    """Return each search's candidates as trees put them that learned from the visits of other folds."""
    pages: list[tuple[str, ...]] = [()] * len(asked)
    for train, test in folds(asked):
        labels = [_relevant(asked[q]) for q in train]
        learned = lightgbm.Dataset(
            np.concatenate([features[q] for q in train]),
            np.concatenate(labels).astype(np.int64),
            group=[len(label_C) for label_C in labels],
        )
        booster = lightgbm.train(_TREES, learned, num_boost_round=_ROUNDS)
        for q in test:
            score_C = np.asarray(booster.predict(features[q], num_threads=1))
            order = np.argsort(-score_C, kind="stable")
            pages[q] = tuple(asked[q].item_ids[c] for c in order)
    return pages


def folds(asked: Sequence[Asked]) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the searches to learn from and to judge by; a visit's are in one fold."""
    visits = {visit: number for number, visit in enumerate(dict.fromkeys(query.visit for query in asked))}
    fold_V = np.random.default_rng(0).permutation(len(visits)) % FOLDS
    fold_Q = [int(fold_V[visits[query.visit]]) for query in asked]
    for fold in range(FOLDS):
        train = [q for q, found in enumerate(fold_Q) if found != fold and _relevant(asked[q]).any()]
        yield train, [q for q, found in enumerate(fold_Q) if found == fold]


def _ranks(asked: Sequence[Asked], pages: Sequence[tuple[str, ...]]) -> Ints:
    return np.array([rank_of(page, query.judged.relevant) for query, page in zip(asked, pages, strict=True)])
