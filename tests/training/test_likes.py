"""Likes of users, and the sparse matrices that they are in."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.datasets.statistics import DAY_MS
from training.datasets.tables import TIMESTAMP
from training.likes import likes
from training.sparse_rows import sparse_rows

ITEMS = pa.table({"item_id": ["a", "b", "c"]})
NOW = 10 * DAY_MS


def events(*rows: tuple[str, str, int, str]) -> pa.Table:
    users, items, days, actions = zip(*rows, strict=True)
    times = pa.array([day * DAY_MS for day in days], TIMESTAMP)
    return pa.table({"user_id": users, "item_id": items, "timestamp": times, "action": actions})


EVENTS = events(
    ("u", "b", 6, "buy"),
    ("u", "b", 9, "buy"),
    ("v", "a", 8, "view"),
    ("v", "gone", 8, "buy"),
    ("w", "c", 10, "buy"),
)


def test_a_like_fades_since_the_newest_event_or_since_the_first() -> None:
    newest = likes(ITEMS, EVENTS, NOW, half_life_days=1.0)
    assert newest.dense(np.arange(2)).tolist() == [[0, 0.5, 0], [0.25, 0, 0]], "w is not known yet"
    first = likes(ITEMS, EVENTS, NOW, half_life_days=1.0, first=True)
    assert first.dense(np.arange(2)).tolist() == [[0, 0.0625, 0], [0.25, 0, 0]]
    assert likes(ITEMS, EVENTS, NOW).dense(np.arange(2)).tolist() == [[0, 1, 0], [1, 0, 0]]


def test_only_some_actions_and_days_count() -> None:
    bought = likes(ITEMS, EVENTS, NOW, actions=("buy",))
    assert len(bought) == 2, "a user without such an event keeps a row"
    assert bought.dense(np.arange(2)).tolist() == [[0, 1, 0], [0, 0, 0]]
    assert likes(ITEMS, EVENTS, NOW, window_days=1.5).dense(np.arange(2)).tolist() == [[0, 1, 0], [0, 0, 0]]
    assert len(likes(ITEMS, EVENTS, 0)) == 0


entries = st.dictionaries(
    st.tuples(st.integers(0, 4), st.integers(0, 3)), st.integers(1, 9).map(float), max_size=12
)


@given(entries, st.lists(st.tuples(st.integers(0, 4), st.integers(-2, 2).map(float)), max_size=6))
def test_sums_of_rows_are_those_of_the_full_matrix(
    found: dict[tuple[int, int], float], asked: list[tuple[int, float]]
) -> None:
    full = np.zeros((5, 4))
    for (row, column), value in found.items():
        full[row, column] = value
    at = np.array(list(found), np.int64).reshape(-1, 2)
    matrix = sparse_rows(at[:, 0], at[:, 1], np.array(list(found.values())), rows=5, width=4)
    rows, weights = np.array([r for r, _ in asked], np.int64), np.array([w for _, w in asked])
    assert matrix.weighted_sum(rows, weights).tolist() == pytest.approx((weights @ full[rows]).tolist())
    met, values = matrix.weighted_entries(rows, weights)
    sparse = np.zeros(4)
    sparse[met] = values
    assert sparse.tolist() == pytest.approx((weights @ full[rows]).tolist())
    assert np.all(np.diff(met) > 0)
    assert matrix.dense(rows).tolist() == full[rows].tolist()
    assert matrix.transposed().dense(np.arange(4)).tolist() == full.T.tolist()
    assert matrix.norms().tolist() == pytest.approx(np.sqrt((full**2).sum(axis=1)).tolist())
