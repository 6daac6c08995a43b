"""Neighbours of items as columns of the item table."""

import pyarrow as pa
import pytest

from training.datasets.statistics import DAY_MS
from training.datasets.tables import TIMESTAMP
from training.item_graph import CLUSTER, ITEMS, PLACES, QUERIES, TAKES, ItemGraph, with_neighbours

ITEM_TABLE = pa.table({"item_id": ["a", "b", "c"]})
USERS = pa.table({"user_id": ["u", "v", "w", "x"], "country": ["uk", "uk", "fr", None]})


def days(*numbers: int) -> pa.Array:
    return pa.array([number * DAY_MS for number in numbers], TIMESTAMP)


EVENTS = pa.table(
    {
        "user_id": ["u", "v", "u", "v", "w", "x", "nobody"],
        "item_id": ["a", "a", "b", "b", "a", "c", "c"],
        "action": ["purchase"] * 7,
        "timestamp": days(1, 1, 2, 2, 3, 4, 4),
    }
)
QUERY_TABLE = pa.table(
    {
        "query": ["Red Mug", "mug", "red  mug", "", "late"],
        "item_id": ["a", "a", "a", "b", "b"],
        "timestamp": days(1, 2, 3, 4, 9),
    }
)


def columns(graph: ItemGraph, *, now: int = 5) -> dict[str, list[list[str]]]:
    table = with_neighbours(graph, ITEM_TABLE, EVENTS, QUERY_TABLE, USERS, now * DAY_MS)
    assert table.column("item_id") == ITEM_TABLE.column("item_id")
    return {name: table.column(name).to_pylist() for name in table.column_names if name != "item_id"}


def test_an_item_has_the_queries_that_led_to_it_most_first() -> None:
    assert columns(ItemGraph(queries=2)) == {QUERIES: [["red mug", "mug"], [], []]}
    assert columns(ItemGraph(queries=1))[QUERIES][0] == ["red mug"]


def test_nothing_from_after_the_moment_counts() -> None:
    assert columns(ItemGraph(queries=9))[QUERIES][1] == []
    assert columns(ItemGraph(queries=9), now=10)[QUERIES][1] == ["late"]


def test_an_item_remembers_how_often_each_text_led_to_it() -> None:
    table = with_neighbours(
        ItemGraph(takes=2, half_life_days=2), ITEM_TABLE, EVENTS, QUERY_TABLE, USERS, 5 * DAY_MS
    )
    counts = [{"text": "red mug", "count": 0.75}, {"text": "mug", "count": 0.5**1.5}]
    assert table.column(TAKES).to_pylist() == [counts, [], []]


def test_an_item_has_those_that_its_users_took_too() -> None:
    assert columns(ItemGraph(items=5)) == {ITEMS: [["b"], ["a"], []]}


def test_an_item_is_of_the_places_that_take_it_most() -> None:
    found = columns(ItemGraph(places=2, place="country"))[PLACES]
    assert found == [["uk", "fr"], ["uk"], []], "who is nowhere counts for no place"
    assert columns(ItemGraph(places=1, place="country"))[PLACES][0] == ["uk"]


def test_items_that_the_same_users_take_have_one_cluster() -> None:
    table = with_neighbours(ItemGraph(clusters=2), ITEM_TABLE, EVENTS, QUERY_TABLE, USERS, 5 * DAY_MS)
    one, other, third = table.column(CLUSTER).to_pylist()
    assert one == other
    assert {one, third} == {"0", "1"}


def test_without_anything_asked_the_table_stays_as_it_is() -> None:
    assert columns(ItemGraph()) == {}


def test_graphs_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        ItemGraph(items=-1)
    with pytest.raises(ValueError, match="places and place go together"):
        ItemGraph(places=2)
    with pytest.raises(ValueError, match="half_life_days"):
        ItemGraph(half_life_days=0)
