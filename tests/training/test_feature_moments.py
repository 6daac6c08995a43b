"""Features of candidates never look ahead, and are one thing in training and in serving.

Legend: Q = requests, C = candidates, K = cross features.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from shards.candidates import Candidates
from shards.cross_kinds import (
    HISTORY_MEASURES,
    MATCH_MEASURES,
    TAKES_MEASURES,
    HistoryCount,
    HistoryGap,
    HistoryRecency,
    HistoryShare,
    HistorySize,
    HistoryWords,
    ItemNumber,
    QueryTakes,
    WordMatch,
    WordPlaces,
)
from shards.feature_encoder import RequestEncoder
from shards.features import Feature, FeatureSpec
from shards.forward_index import ForwardIndex
from shards.multi_task import MultiTask
from shards.release import GateRules
from shards.search_context import SearchContext
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import RECIPE, TASKS, gate
from training.channels import Destination
from training.datasets.splits import known_until_ms
from training.datasets.tables import Dataset, timestamps_ms
from training.evaluation.judgements import judged_queries
from training.evaluation.offline import merged, retrieve
from training.item_graph import ItemGraph
from training.models.multi_task_ranker import MultiTaskRankerConfig
from training.pipeline import train
from training.ranking import RankingTraining, ranking_set
from training.recipe import RankerRecipe
from training.refreshing import stretches
from training.run import Run
from training.snapshot import snapshot
from training.task_labels import TaskLabels
from training.trainer import FitConfig

DATA = shop_dataset()
TEST_MS = known_until_ms(DATA)
WINDOWS = ("popularity_1h", "popularity_1d", "popularity_7d", "popularity_30d", "trending")
CROSS: tuple[Feature, ...] = (
    *(ItemNumber(name=name, source=f"item.{name}", log1p=True) for name in WINDOWS),
    *(QueryTakes(name=of, source="item.takes", of=of) for of in TAKES_MEASURES),
    HistoryCount(name="own_count"),
    HistoryCount(name="own_count_7d", within_days=7),
    HistorySize(name="events_1h", of="events", within_days=1 / 24),
    HistoryRecency(name="own_recency", half_life_days=7),
    HistoryShare(name="own_share"),
    *(HistorySize(name=of, of=of) for of in HISTORY_MEASURES),
    HistoryGap(name="price_gap", source="item.price_gbp", log1p=True),
    *(WordMatch(name=f"match_{of}", source="item.title", of=of) for of in MATCH_MEASURES),
    WordPlaces(name="places", source="item.title", lifts=((), (), (0.0, 1.0, -1.0, 0.0))),
    HistoryWords(name="own_words", source="item.title"),
)
GRAPH = ItemGraph(takes=20)
RECIPE_OF_ALL = replace(
    RECIPE,
    channels=tuple(c for c in RECIPE.channels if c.source != "two_tower"),
    features=replace(RECIPE.features, ranking=(*RECIPE.features.ranking[:7], *CROSS)),
    item_graph=GRAPH,
    pre_ranker=None,
    ranker=RankerRecipe(
        model=MultiTaskRankerConfig(width=4, hidden=4, experts=2, expert_width=4, tasks=TASKS),
        training=RankingTraining(fit=FitConfig(epochs=1)),
        candidates=30,
    ),
    gate=GateRules(),
    gate_model=None,
    ranking_days=12,
)


def crosses(data: Dataset, query: int) -> NDArray[np.float32]:
    """Return the features [C, K] of all items for a query of the log, as of its moment."""
    now_ms = int(timestamps_ms(data.queries)[query])
    known = snapshot(data, now_ms).with_neighbours(GRAPH, data.users)
    run = Run(recipe=RECIPE_OF_ALL, dataset=data, seed=0, gate=gate)
    found = run.requests_between(now_ms, now_ms + 1, newest=1)
    items = ForwardIndex(known.items)
    spec = FeatureSpec(features=CROSS)
    encoder = RequestEncoder(spec, None, items.rows, items.columns(spec.item_columns))
    return encoder.encode_cross(
        found.contexts[0], np.arange(len(items)), Candidates(item_ids=tuple(items.item_ids))
    )


@given(st.integers(100, 899), st.integers(0, 2**32 - 1))
def test_shuffling_the_future_changes_nothing(query: int, seed: int) -> None:
    now_ms = int(timestamps_ms(DATA.queries)[query])
    rng = np.random.default_rng(seed)

    def shuffled(table: pa.Table, *names: str) -> pa.Table:
        rows = np.arange(len(table))
        future = np.flatnonzero(timestamps_ms(table) >= now_ms)
        rows[future] = rng.permutation(future)
        for name in names:
            column = table.column(name).take(pa.array(rows))
            table = table.set_column(table.column_names.index(name), name, column)
        return table

    other = replace(
        DATA,
        events=shuffled(DATA.events, "item_id", "price_gbp", "user_id"),
        queries=shuffled(DATA.queries, "item_id"),
    )
    np.testing.assert_array_equal(crosses(other, query), crosses(DATA, query))


def test_the_past_does_change_them() -> None:
    assert not np.array_equal(crosses(DATA, 700), crosses(DATA, 500))


def test_a_replayed_day_has_the_features_of_training(tmp_path: Path) -> None:
    """The bundles of each refresh, as shards open them, against the sets that rankers train on."""
    run = Run(recipe=RECIPE_OF_ALL, dataset=DATA, seed=0, gate=gate)
    release = train(run, Destination(root=tmp_path, prefix="shop", version="1")).release
    judged = judged_queries(DATA, "test", limit=0, history_limit=RECIPE_OF_ALL.history_limit)
    refreshes = 0
    for stretch in stretches(run, release, tmp_path, [q.context.now_ms for q in judged], 2.0):
        ranker = stretch.cascade.ranker
        assert isinstance(ranker, MultiTask)
        contexts = [query.context for query in judged[stretch.searches]]
        found = [merged(release, retrieve(stretch.cascade, c), gate_open=True) for c in contexts]
        trained = trained_crosses(ranker, stretch.known.items, contexts, found)
        for q, (context, candidates) in enumerate(zip(contexts, found, strict=True)):
            served_CK = ranker.encoder.encode_cross(
                context, ranker.items.rows_of(candidates.item_ids), candidates
            )
            np.testing.assert_array_equal(trained[q, : len(candidates)], served_CK)
        refreshes += 1
    assert refreshes == 3


def trained_crosses(
    ranker: MultiTask, known: pa.Table, contexts: list[SearchContext], found: list[Candidates]
) -> NDArray[np.float32]:
    """Return the features [Q, C, K] as training makes them from the table of the day."""
    spec, items = ranker.bundle.spec, ForwardIndex(known)
    assert spec is not None
    encoder = RequestEncoder(spec, ranker.bundle.tokenizer, items.rows, items.columns(spec.item_columns))
    labels = [[TaskLabels()]] * len(contexts)
    return ranking_set([encoder] * len(contexts), items, contexts, found, labels).cross_QCK.numpy()
