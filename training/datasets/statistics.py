"""Statistics as of a moment: what was known strictly before it, and nothing later.

A feature computed over the whole log leaks the future into training and is wrong at serving time.
`AsOfIndex` answers the same questions for any past moment, from the events before it only.

Legend: E = events in the index, Q = look-ups; keys and moments broadcast against each other.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

DAY_MS = 86_400_000


class AsOfIndex:
    """Events by key and time, for vectorised look-ups as of any moment.

    A key is a row number (an item, a user, a query text) or a pair of them from `pair_keys`;
    negative keys are unknown: such events are dropped and such look-ups find nothing. Rows that the
    look-ups return number the events as they were given.
    """

    def __init__(self, keys_E: Ints, times_ms_E: Ints) -> None:
        if keys_E.shape != times_ms_E.shape:
            raise ValueError(f"{len(keys_E)} keys do not go with {len(times_ms_E)} times")
        known = np.flatnonzero(keys_E >= 0)
        self._keys, codes = np.unique(keys_E[known], return_inverse=True)
        self._times, ranks = np.unique(times_ms_E[known], return_inverse=True)
        # One sortable number per event: the key's code, then the rank of its time. Both are below E,
        # so it cannot overflow, which key and milliseconds packed into 64 bits could.
        packed = codes.astype(np.int64) * (len(self._times) + 1) + ranks
        order = np.argsort(packed, kind="stable")
        self._packed = packed[order]
        self._rows = known[order]

    def count(self, keys_Q: ArrayLike, before_ms_Q: ArrayLike, *, window_ms: int | None = None) -> Ints:
        """Return how many of each key's events lie in [before - window, before); no window counts all."""
        keys, before_ms = np.broadcast_arrays(
            np.asarray(keys_Q, dtype=np.int64), np.asarray(before_ms_Q, dtype=np.int64)
        )
        starts, ends, found = self._spans(keys, before_ms)
        if window_ms is not None:
            _, starts, _ = self._spans(keys, before_ms - window_ms)
        return np.where(found, ends - starts, 0)

    def last(self, keys_Q: ArrayLike, before_ms_Q: ArrayLike) -> Ints:
        """Return the row of each key's newest event strictly before the moment, -1 for none."""
        keys, before_ms = np.broadcast_arrays(
            np.asarray(keys_Q, dtype=np.int64), np.asarray(before_ms_Q, dtype=np.int64)
        )
        starts, ends, found = self._spans(keys, before_ms)
        if not len(self._rows):
            return np.full(keys.shape, -1, dtype=np.int64)
        return np.where(found & (ends > starts), self._rows[np.maximum(ends - 1, 0)], -1)

    def last_value(self, values_E: Floats, keys_Q: ArrayLike, before_ms_Q: ArrayLike) -> Floats:
        """Return the value of each key's newest event strictly before the moment, NaN for none."""
        rows = self.last(keys_Q, before_ms_Q)
        return np.where(rows >= 0, np.append(values_E.astype(np.float64), np.nan)[rows], np.nan)

    def earlier(self, key: int, before_ms: int) -> Ints:
        """Return the rows of one key's events strictly before the moment, oldest first."""
        starts, ends, found = self._spans(np.array([key]), np.array([before_ms]))
        return self._rows[starts[0] : ends[0]] if found[0] else self._rows[:0]

    def _spans(self, keys: Ints, before_ms: Ints) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        codes = np.searchsorted(self._keys, keys)
        found = np.append(self._keys, -1)[codes] == keys
        found &= keys >= 0
        base = codes.astype(np.int64) * (len(self._times) + 1)
        ends = np.searchsorted(self._packed, base + np.searchsorted(self._times, before_ms))
        return np.searchsorted(self._packed, base), ends, found


def pair_keys(left: ArrayLike, right: ArrayLike, *, right_size: int) -> Ints:
    """Return one key for each (left, right) pair of row numbers, -1 where either is negative.

    `right_size` is the number of rows that `right` numbers.
    """
    lefts, rights = np.broadcast_arrays(np.asarray(left, np.int64), np.asarray(right, np.int64))
    return np.where((lefts >= 0) & (rights >= 0), lefts * right_size + rights, -1)
