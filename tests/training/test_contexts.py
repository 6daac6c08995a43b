import asyncio
from dataclasses import replace

import pyarrow as pa

from services.user_history import UserEvent
from services.user_store import MemoryUserStore
from shards.search_context import History
from tests.training.small_dataset import small_dataset
from training.datasets.contexts import Histories, raw_features, search_contexts
from training.datasets.tables import TIMESTAMP, sort_tables


def test_history_is_strictly_before_and_newest_last() -> None:
    histories = Histories(small_dataset().events)
    assert histories.before("u1", 2000, limit=9) == History(("a",), ("like",), (1000,))
    assert histories.before("u1", 2001, limit=9).item_ids == ("a", "b")
    assert histories.before("u1", 2001, limit=1).item_ids == ("b",)
    assert histories.before("stranger", 2001, limit=1) == History()


def test_contexts_follow_the_queries() -> None:
    dataset = small_dataset()
    contexts = list(search_contexts(dataset, dataset.queries, history_limit=5))
    assert [context.query for context in contexts] == ["mug", "blue", "red", ""]
    assert contexts[3].user.history.item_ids == ("a", "b")
    assert contexts[3].user.features == {"country": "uk"}
    assert contexts[3].now_ms == 4000
    assert contexts[2].user.user_id == ""
    assert contexts[2].user.history == History()


def test_the_user_store_tells_the_same_histories() -> None:
    dataset = small_dataset()
    ties = pa.array([1000, 1000, 1000], TIMESTAMP)
    events = dataset.events.set_column(4, "timestamp", ties).set_column(1, "user_id", pa.array(["u1"] * 3))
    dataset = sort_tables(replace(dataset, events=events))
    store = MemoryUserStore()
    load = store.load(
        raw_features(dataset.users, "user_id"),
        (
            UserEvent(user_id=user_id, item_id=item_id, action=action, timestamp_ms=1000)
            for user_id, item_id, action in zip(
                *(dataset.events.column(name).to_pylist() for name in ("user_id", "item_id", "action")),
                strict=True,
            )
        ),
    )
    asyncio.run(load)
    for context in search_contexts(dataset, dataset.queries, history_limit=2):
        known = asyncio.run(store.get(context.user.user_id, context.now_ms, 2))
        assert known == context.user


def test_raw_features_are_texts_numbers_and_tuples() -> None:
    table = small_dataset().items.append_column("year", [[1999, None, 2000]])
    table = table.append_column("genres", [[["x", "y"], None, []]])
    assert raw_features(table, "item_id")["a"] == {"title": "red mug", "year": 1999.0, "genres": ("x", "y")}
    assert raw_features(table, "item_id")["b"] == {"title": "blue mug"}
