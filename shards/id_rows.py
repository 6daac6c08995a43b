"""Rows of thousands of item ids at once, where a dictionary misses the cache at every step of a look-up.

An open hash table in arrays: the bytes of ids are compared as words of eight, of all ids in each step.
Legend: N = items, C = ids asked for, W = words of the longest id, S = slots.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Words = NDArray[np.uint64]

_MIX, _LAST_MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xFF51AFD7ED558CCD)
_FOLD = np.uint64(32)
_WORD_BYTES = 8


class IdRows:
    """Immutable; ValueError where an id holds a NUL, by which ids are told apart."""

    def __init__(self, item_ids: Sequence[str]) -> None:
        longest = max((len(item.encode()) for item in item_ids), default=1)
        self._width = -(-max(longest, 1) // _WORD_BYTES) * _WORD_BYTES
        words = _words(item_ids, self._width)
        if words is None:
            raise ValueError("an item id holds a NUL")
        self._words_NW = words
        self._slots = 1 << max(4, (2 * len(item_ids) - 1).bit_length())
        self._row_S = np.full(self._slots, -1, np.int32)
        waiting = np.arange(len(item_ids))
        slot = self._slot(words)
        while len(waiting):
            free = self._row_S[slot] < 0
            # Of several that want one slot the last one gets it.
            self._row_S[slot[free]] = waiting[free]
            lost = self._row_S[slot] != waiting
            waiting, slot = waiting[lost], (slot[lost] + 1) & (self._slots - 1)

    def of(self, item_ids: Sequence[str]) -> Rows | None:
        """Return the row of each id [C], -1 where it is not known; None where an id holds a NUL."""
        words_CW = _words(item_ids, self._width)
        if words_CW is None:
            return None
        row_C = np.full(len(item_ids), -1, np.int64)
        asking, slot = np.arange(len(item_ids) if len(self._words_NW) else 0), self._slot(words_CW)
        while len(asking):
            held = self._row_S.take(slot)
            same = (self._words_NW.take(held, axis=0) == words_CW.take(asking, axis=0)).all(axis=1)
            same &= held >= 0
            row_C[asking[same]] = held[same]
            further = ~same & (held >= 0)
            asking, slot = asking[further], (slot[further] + 1) & (self._slots - 1)
        return row_C

    def _slot(self, words_XW: Words) -> Rows:
        mixed_X = np.zeros(len(words_XW), np.uint64)
        for word_X in words_XW.T:
            mixed_X = (mixed_X ^ word_X) * _MIX
            mixed_X ^= mixed_X >> _FOLD
        # Ids that count up differ in few bits; spread no further, they lie in rows that many steps go along.
        mixed_X *= _LAST_MIX
        mixed_X ^= mixed_X >> _FOLD
        return (mixed_X & np.uint64(self._slots - 1)).astype(np.int64)


def _words(item_ids: Sequence[str], width: int) -> Words | None:
    """Return the bytes of each id, zeros behind them, as words [X, W]; None where an id holds a NUL.

    One that is longer than `width` becomes what no id is: all ones.
    """
    joined = np.frombuffer("\0".join([*item_ids, ""]).encode("utf-8", "surrogatepass"), np.uint8)
    end_X = np.flatnonzero(joined == 0)
    if len(end_X) != len(item_ids):
        return None
    start_X = np.concatenate([[0], end_X[:-1] + 1]) if len(end_X) else end_X
    at_XB = start_X[:, np.newaxis] + np.arange(width)
    byte_XB = np.where(at_XB < end_X[:, np.newaxis], joined.take(at_XB, mode="clip"), 0).astype(np.uint8)
    byte_XB[end_X - start_X > width] = 0xFF
    words_XW: Words = byte_XB.view(np.uint64)
    return words_XW
