"""Item CF, Swing and popularity against values worked out by hand."""

import numpy as np
import pyarrow as pa
import pytest

from training.datasets.statistics import DAY_MS
from training.datasets.tables import TIMESTAMP
from training.item_similarity import item_cf, swing
from training.item_successors import successors
from training.likes import likes
from training.popularity import new_items, trending_items
from training.sparse_rows import SparseRows, sparse_rows

NOW = 10 * DAY_MS
ITEMS = pa.table({"item_id": ["a", "b", "c"], "age_days": [2.0, None, 40.0]})


def rows(table: pa.Table) -> dict[str, list[tuple[str, object]]]:
    found: dict[str, list[tuple[str, object]]] = {}
    for row in table.to_pylist():
        found.setdefault(row["key"], []).append((row["item_id"], pytest.approx(row["score"], rel=1e-6)))
    return found


def events(*met: tuple[str, str, float]) -> pa.Table:
    users, items, days = zip(*met, strict=True)
    times = pa.array([int(day * DAY_MS) for day in days], TIMESTAMP)
    return pa.table({"user_id": users, "item_id": items, "timestamp": times})


def matrix(likes_UN: list[list[float]]) -> SparseRows:
    full = np.array(likes_UN)
    user_E, item_E = np.nonzero(full)
    return sparse_rows(user_E, item_E, full[user_E, item_E], rows=len(full), width=full.shape[1])


def test_item_cf_is_the_cosine_of_likes() -> None:
    like_UN = matrix([[1.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 1.0, 0.25]])
    table = rows(item_cf(ITEMS, like_UN, shrink=0.0, top=5))
    a, b, c = 1.25**0.5, 2.25**0.5, 0.25
    assert table["a"] == [("b", (1.0 * 0.5 + 0.5 * 1.0) / (a * b))]
    assert table["b"] == [("c", 0.25 / (b * c)), ("a", 1.0 / (a * b))]
    assert table["c"] == [("b", 0.25 / (b * c))]
    assert rows(item_cf(ITEMS, like_UN, shrink=0.0, top=1))["b"] == [("c", 0.25 / (b * c))]


def test_item_cf_shrinks_what_few_users_share() -> None:
    met = [("u", "a"), ("u", "b"), ("u", "b"), ("v", "a"), ("v", "b"), ("w", "b"), ("w", "c")]
    like_UN = likes(ITEMS, events(*((user, item, 1) for user, item in met)), NOW)
    table = rows(item_cf(ITEMS, like_UN, shrink=1.0, top=5))
    assert table["a"] == [("b", 2 / ((2 * 3) ** 0.5 + 1))]
    assert table["c"] == [("b", 1 / (3**0.5 + 1))]
    assert rows(item_cf(ITEMS, likes(ITEMS, events(("u", "a", 11)), NOW), shrink=1.0, top=5)) == {}


def test_item_cf_tells_what_is_recommended_by_other_likes() -> None:
    like_UN = matrix([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0]])
    discovered_UN = matrix([[0.0, 0.5, 0.0], [0.0, 0.0, 1.0]])
    table = rows(item_cf(ITEMS, like_UN, target_UN=discovered_UN, shrink=0.0, top=5))
    assert table["a"] == [("b", 0.5 / (2**0.5 * 0.5)), ("c", 1 / 2**0.5)]
    assert "c" not in table, "nobody who likes it discovered anything else"


def test_swing_of_three_users_with_overlaps_of_four_two_and_two() -> None:
    """Users A, B, C share items 0 and 1; A and B also items 2 and 3: overlaps AB=4, BC=2, AC=2."""
    items = pa.table({"item_id": ["a", "b", "c", "d"]})
    like_UN = matrix([[1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 0, 0]])
    table = rows(swing(items, like_UN, alpha=1.0, top=5))
    assert table["a"][0] == ("b", 13 / 15), "1/5 + 1/3 + 1/3 over unordered pairs"
    assert table["a"][1:] == [("c", 1 / 5), ("d", 1 / 5)]
    weighted = rows(swing(items, like_UN, alpha=1.0, user_weights=True, top=5))
    assert weighted["a"][0] == ("b", 1 / 5 / 4 + 2 * (1 / 3) / 8**0.5)
    fewer = rows(swing(items, matrix([[1, 1, 1, 1], [1, 1, 1, 1], [0.5, 0.5, 0, 0]]), most_users=2, top=5))
    assert fewer["a"][0] == ("b", 1 / 5), "of many users those who like it most"


def test_successors_are_what_users_took_after_an_item_the_sooner_the_more() -> None:
    met = events(("u", "a", 1), ("v", "b", 1), ("u", "b", 2), ("u", "c", 3), ("v", "c", 2), ("v", "gone", 0))
    table = rows(successors(ITEMS, met, gap_decay=0.5, most_steps=5, shrink=1.0, top=5))
    assert table["a"] == [("b", 1 / (2**0.5 + 1)), ("c", 0.5 / (2**0.5 + 1))]
    assert table["b"] == [("c", 2 / (2 + 1))]
    assert "c" not in table, "nothing came after it"
    nearer = rows(successors(ITEMS, met, gap_decay=0.5, most_steps=1, shrink=0.0, top=1))
    assert nearer["a"] == [("b", 1 / 2**0.5)], "c came two steps after a"
    again = events(("u", "a", 1), ("u", "a", 2), ("u", "b", 3))
    table = rows(successors(ITEMS, again, gap_decay=0.5, most_steps=5, shrink=0.0, top=5))
    assert table == {"a": [("b", 1.5 / 2**0.5)]}, "no item comes after itself"


def test_what_trends_is_what_was_met_lately() -> None:
    met = events(("u", "a", 8), ("u", "a", 9), ("v", "b", 9), ("w", "c", 7), ("w", "gone", 9), ("v", "b", 11))
    assert rows(trending_items(ITEMS, met, NOW, half_life_days=1.0, top=5)) == {
        "": [("a", 0.75), ("b", 0.5), ("c", 0.125)]
    }
    first = rows(trending_items(ITEMS, met, NOW, half_life_days=1.0, first_only=True, top=2))
    assert first == {"": [("b", 0.5), ("a", 0.25)]}


def test_what_is_new_was_met_lately_for_the_first_time() -> None:
    assert rows(new_items(ITEMS, within_days=4.0, top=5)) == {"": [("a", 0.5)]}
    assert rows(new_items(ITEMS, within_days=80.0, top=5)) == {"": [("a", 78 / 80), ("c", 0.5)]}
