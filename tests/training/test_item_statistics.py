"""Statistics of items never look past their moment."""

import math

import pyarrow as pa
import pytest

from training.datasets.statistics import DAY_MS
from training.datasets.tables import TIMESTAMP
from training.item_statistics import items_as_of

ITEMS = pa.table({"item_id": ["a", "b"], "title": ["A", "B"]})


def events(*, later: bool) -> pa.Table:
    rows = [("a", 1, 2.0, 5.0), ("a", 50, 3.0, None), ("zzz", 60, 1.0, 1.0)]
    rows += [("a", 100, 99.0, 1.0), ("b", 100, 99.0, 1.0)] if later else []
    return pa.table(
        {
            "item_id": [row[0] for row in rows],
            "timestamp": pa.array([row[1] * DAY_MS for row in rows], TIMESTAMP),
            "price_gbp": [row[2] for row in rows],
            "rating": [row[3] for row in rows],
        }
    )


def test_statistics_by_hand() -> None:
    a, b = items_as_of(ITEMS, events(later=False), 61 * DAY_MS).to_pylist()
    assert (a["popularity"], a["popularity_30d"], a["popularity_7d"], a["popularity_90d"]) == (2, 1, 0, 2)
    assert (a["age_days"], a["idle_days"], a["price_gbp"], a["rating"]) == (60, 11, 3.0, 5.0)
    assert a["popularity_daily"] == pytest.approx(2 / 60)
    assert a["prior"] == pytest.approx(math.log(2))
    assert a["trending"] == pytest.approx(0.5**12 + 0.5 ** (11 / 5))
    assert a["trending_prior"] == pytest.approx(math.log1p(a["trending"]))
    assert (b["popularity"], b["prior"], b["trending"], b["trending_prior"]) == (0, 0, 0, 0)
    assert b["age_days"] is b["idle_days"] is b["price_gbp"] is b["rating"] is None


def test_the_last_hour_is_counted_by_itself() -> None:
    for now_ms, count in ((100 * DAY_MS + 1, 1), (100 * DAY_MS + DAY_MS // 24, 1), (101 * DAY_MS, 0)):
        a, b = items_as_of(ITEMS, events(later=True), now_ms).to_pylist()
        assert (a["popularity_1h"], b["popularity_1h"]) == (count, count)


def test_what_happens_at_the_moment_or_later_changes_nothing() -> None:
    now_ms = 100 * DAY_MS
    before = items_as_of(ITEMS, events(later=False), now_ms)
    assert before.equals(items_as_of(ITEMS, events(later=True), now_ms))
