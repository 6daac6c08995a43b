from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.datasets.statistics import AsOfIndex, pair_keys

KEYS = np.array([0, 1, 0, 0, -1, 1])
TIMES = np.array([10, 10, 20, 30, 5, 5])
VALUES = np.array([1.0, 2.0, 3.0, 4.0, 9.0, 5.0])


def test_counts_are_of_events_strictly_before() -> None:
    index = AsOfIndex(KEYS, TIMES)
    np.testing.assert_array_equal(index.count([0, 0, 0, 1], [10, 11, 31, 10]), [0, 1, 3, 1])
    np.testing.assert_array_equal(index.count([7, -1], [100, 100]), [0, 0])


def test_a_window_starts_on_its_edge() -> None:
    index = AsOfIndex(KEYS, TIMES)
    assert index.count(0, 30, window_ms=20) == 2
    assert index.count(0, 30, window_ms=19) == 1
    assert index.count(0, 30, window_ms=0) == 0


def test_keys_and_moments_broadcast() -> None:
    counts = AsOfIndex(KEYS, TIMES).count(np.array([0, 1])[None, :], np.array([15, 25, 35])[:, None])
    np.testing.assert_array_equal(counts, [[1, 2], [2, 2], [3, 2]])


def test_last_value() -> None:
    index = AsOfIndex(KEYS, TIMES)
    np.testing.assert_array_equal(index.last([0, 0, 1, 5], [10, 25, 99, 99]), [-1, 2, 1, -1])
    np.testing.assert_array_equal(index.last_value(VALUES, [0, 0, 1], [10, 25, 99]), [np.nan, 3, 2])


def test_earlier_rows_come_oldest_first() -> None:
    index = AsOfIndex(KEYS, TIMES)
    assert index.earlier(0, 30).tolist() == [0, 2]
    assert index.earlier(1, 99).tolist() == [5, 1]
    assert index.earlier(3, 99).tolist() == []
    assert index.earlier(-1, 99).tolist() == []


def test_an_index_without_events_knows_nothing() -> None:
    index = AsOfIndex(np.array([], np.int64), np.array([], np.int64))
    assert index.count([0], [5]).tolist() == [0]
    assert index.last([0], [5]).tolist() == [-1]
    assert index.earlier(0, 5).tolist() == []


def test_pair_keys_do_not_collide_and_keep_the_unknown() -> None:
    left, right = np.meshgrid(np.arange(-1, 3), np.arange(-1, 4))
    keys = pair_keys(left, right, right_size=4)
    assert (keys[(left < 0) | (right < 0)] == -1).all()
    assert len(set(keys[keys >= 0].tolist())) == 3 * 4


def test_misaligned_events_are_refused() -> None:
    with pytest.raises(ValueError, match="3 keys"):
        AsOfIndex(np.zeros(3, np.int64), np.zeros(2, np.int64))


events = st.lists(st.tuples(st.integers(-1, 4), st.integers(0, 40), st.integers(0, 99)), max_size=60)


def answers(events: list[tuple[int, int, int]], now_ms: int) -> list[list[float]]:
    """Return all that an index of (key, time, value) says about every key as of one moment."""
    table = np.array(events, np.int64).reshape(-1, 3)
    index, values = AsOfIndex(table[:, 0], table[:, 1]), table[:, 2].astype(np.float64)
    keys = np.arange(-1, 6)
    counts = [index.count(keys, now_ms), index.count(keys, now_ms, window_ms=7)]
    earlier = [[values[row] for row in index.earlier(int(key), now_ms)] for key in keys]
    return [c.tolist() for c in counts] + [index.last_value(values, keys, now_ms).tolist(), *earlier]


@given(known=events, future=events, now_ms=st.integers(0, 40), random=st.randoms())
def test_the_future_changes_nothing(
    known: list[tuple[int, int, int]], future: list[tuple[int, int, int]], now_ms: int, random: Random
) -> None:
    past = [event for event in known if event[1] < now_ms]
    mixed = list(past)
    for key, delay_ms, value in future:
        mixed.insert(random.randint(0, len(mixed)), (key, now_ms + delay_ms, value))
    np.testing.assert_equal(answers(mixed, now_ms), answers(past, now_ms))


@given(rows=events, now_ms=st.integers(0, 40), window_ms=st.integers(0, 45))
def test_counts_equal_counting_by_hand(rows: list[tuple[int, int, int]], now_ms: int, window_ms: int) -> None:
    table = np.array(rows, np.int64).reshape(-1, 3)
    index = AsOfIndex(table[:, 0], table[:, 1])
    for key in range(6):
        expected = sum(k == key and now_ms - window_ms <= t < now_ms for k, t, _ in rows)
        assert index.count(key, now_ms, window_ms=window_ms) == expected
        assert index.earlier(key, now_ms).tolist() == sorted(
            (i for i, (k, t, _) in enumerate(rows) if k == key and t < now_ms), key=lambda i: (rows[i][1], i)
        )
