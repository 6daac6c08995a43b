"""Tables of the engine "table" from arrays: (key, item_id, score) rows, best first.

Legend: N = items.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

Best = tuple[NDArray[np.int64], NDArray[np.float64]]
"""Rows of items and their scores, best first."""


def best_of(score_N: NDArray[np.float64], top: int) -> Best:
    """Return the best `top` items with a score above 0, ties by row."""
    rows = np.flatnonzero(score_N > 0)
    if len(rows) > top:
        least = np.partition(score_N[rows], len(rows) - top)[len(rows) - top]
        rows = rows[score_N[rows] >= least]
    rows = rows[np.argsort(-score_N[rows], kind="stable")][:top]
    return rows, score_N[rows]


def keyed_table(items: pa.Table, found: Mapping[str, Best]) -> pa.Table:
    """Return the table of what was found for each key, keys in their order."""
    counts = [len(rows) for rows, _ in found.values()]
    empty = (np.zeros(0, np.int64), np.zeros(0))
    rows, scores = (np.concatenate(parts) for parts in zip(empty, *found.values(), strict=True))
    keys = np.repeat(np.arange(len(found)), counts)
    return pa.table(
        {
            "key": pa.array(list(found), pa.string()).take(pa.array(keys)),
            "item_id": items.column("item_id").take(pa.array(rows)).combine_chunks(),
            "score": pa.array(scores, pa.float32()),
        }
    )
