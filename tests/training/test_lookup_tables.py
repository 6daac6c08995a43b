"""Look-up tables against values worked out by hand."""

import pyarrow as pa
import pytest

from training.datasets.statistics import DAY_MS
from training.datasets.tables import TIMESTAMP
from training.lookup_tables import (
    popular_items,
    query_memory,
    title_popularity,
    token_memory,
)

NOW = 10 * DAY_MS
ITEMS = pa.table(
    {
        "item_id": ["a", "b", "c"],
        "title": ["Red mug", "Big red bag", None],
        "sales": [9.0, 3.0, None],
    }
)


def rows(table: pa.Table) -> dict[str, list[tuple[str, object]]]:
    found: dict[str, list[tuple[str, object]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["key"], []).append((row["item_id"], pytest.approx(row["score"], abs=1e-6)))
    return found


def queries(*takes: tuple[str, str, int]) -> pa.Table:
    texts, items, days = zip(*takes, strict=True)
    times = pa.array([day * DAY_MS for day in days], TIMESTAMP)
    return pa.table({"query": texts, "item_id": items, "timestamp": times})


TAKES = queries(("Red  mug", "a", 9), ("red mug", "b", 8), ("mug", "c", 9), ("red mug", "c", 10))


def test_query_memory_is_a_smoothed_decayed_share_of_what_came_before() -> None:
    table = rows(query_memory(TAKES, NOW, half_life_days=1, top=5))
    assert table == {
        "red mug": [("a", 0.5 / 1.75), ("b", 0.25 / 1.75)],
        "mug": [("c", 0.5 / 1.5)],
    }, "the take at the very moment does not count"


def test_token_memory_adds_up_over_queries_with_the_word() -> None:
    table = rows(token_memory(TAKES, NOW, half_life_days=1, top=2))
    assert table["red"] == [("a", 0.5 / 1.75), ("b", 0.25 / 1.75)]
    assert table["mug"] == [("a", 0.5 / 2.25), ("c", 0.5 / 2.25)]


def test_title_popularity_prefers_popular_items_that_say_little_else() -> None:
    table = rows(title_popularity(ITEMS, text=("title",), popularity="sales", top=5))
    a, b = 10 / 2**0.5, 4 / 3**0.5
    assert table["red"] == [("a", a / (a + b + 1)), ("b", b / (a + b + 1))]
    assert table.keys() == {"red", "mug", "big", "bag"}


def test_popular_items_leaves_out_what_never_sold() -> None:
    assert rows(popular_items(ITEMS, popularity="sales", top=5)) == {"": [("a", 9.0), ("b", 3.0)]}
