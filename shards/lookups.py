"""Several look-ups on one index for one search, and the one list that is made of what they find.

A query tower with heads asks with each of them (DPSR, arXiv 2006.02282), users who are told by several
items ask with each of those (PinnerSage, arXiv 2007.03634). An item counts by the best score that a look-up
gave it. Where every look-up wants as many items as the whole, that is the re-scoring of their union by the
best vector, exactly: what stands before an item in the list of its best vector stands before it in the one
list too, so an item of the one list is in the list of its best vector.

Legend: H = query vectors, D = width of a vector, K = items found, N = items.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Floats
from shards.forward_index import Mask

Found = tuple[Floats, NDArray[np.int64]]
"""Scores [K] and rows [K]."""


class VectorIndex(Protocol):
    """What finds the items that are best for one vector."""

    @property
    def exact(self) -> bool:
        """Return whether it misses none of them."""

    def exactly(self) -> "VectorIndex":
        """Return an index of the same vectors that misses none."""

    @property
    def width(self) -> int:
        """Return D."""

    def search(self, vector_1D: Floats, k: int, allowed_N: Mask | None = None) -> Found:
        """Return the scores and rows of `k` allowed items, best first, ties by row."""


def look_up(ann: VectorIndex, vector_HD: Floats, k: int, allowed_N: Mask | None = None) -> Found:
    """Return the `k` allowed items that are best for any of the vectors, best first, ties by row."""
    found = [ann.search(vector_D[np.newaxis], k, allowed_N) for vector_D in vector_HD]
    return found[0] if len(found) == 1 else joined(found, (), k)


def look_up_each(ann: VectorIndex, vector_HD: Floats, k: int, allowed_N: Mask | None = None) -> Found:
    """Return `k` allowed items of which an equal share is found by each vector, best first, ties by row.

    What several vectors find leaves room, which the best of all that they found take.
    """
    found = [ann.search(vector_D[np.newaxis], k, allowed_N) for vector_D in vector_HD]
    sizes = equal_sizes(k, len(found))
    shares = [(scores[:size], rows[:size]) for size, (scores, rows) in zip(sizes, found, strict=True)]
    return joined(shares, found, k)


def equal_sizes(k: int, count: int) -> list[int]:
    """Return `k` divided by `count`; the first ones get one more where it is uneven."""
    return [k // count + (place < k % count) for place in range(count)]


def joined(shares: Sequence[Found], others: Sequence[Found], k: int) -> Found:
    """Return the best `k` of the shares, best first, ties by row; the best of the others take what is left.

    An item of several lists is there once, with its best score of all.
    """
    found = (*shares, *others)
    row_K, at = np.unique(np.concatenate([_NO_ROWS, *(rows for _, rows in found)]), return_inverse=True)
    score_K = np.full(len(row_K), -np.inf, np.float32)
    np.maximum.at(score_K, at, np.concatenate([_NO_SCORES, *(scores for scores, _ in found)]))
    shared_K = np.isin(row_K, np.concatenate([_NO_ROWS, *(rows for _, rows in shares)]))
    kept = np.lexsort((row_K, -score_K, ~shared_K))[:k]
    order = kept[np.lexsort((row_K[kept], -score_K[kept]))]
    return score_K[order], row_K[order]


_NO_ROWS = np.empty(0, np.int64)
_NO_SCORES = np.empty(0, np.float32)
