"""The rows of items by their ids: one at a time by a dictionary, thousands at once by a table.

Legend: C = ids asked for.
"""

from collections.abc import Mapping, Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from shards.id_rows import IdRows

_MANY, _LARGE = 1_000, 10_000
"""Ids asked for and ids known from which on a table of all ids is faster than the dictionary."""


class RowLookup:
    """Immutable; the table is made when first asked for."""

    def __init__(self, by_id: Mapping[str, int]) -> None:
        """Know the ids in the order of their rows, which count from 0."""
        self.by_id = by_id
        self._table: IdRows | None = None

    def __len__(self) -> int:
        return len(self.by_id)

    def of(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each item [C]; -1 where it is not known."""
        if len(item_ids) >= _MANY and len(self) >= _LARGE:
            row_C = self._at_once(item_ids)
            if row_C is not None:
                return row_C
        # Without a Python step for each item.
        return np.fromiter(map(self.by_id.get, item_ids, repeat(-1)), np.int64, len(item_ids))

    def _at_once(self, item_ids: Sequence[str]) -> NDArray[np.int64] | None:
        """Return the rows by the table; None where an id holds a NUL."""
        if self._table is None:
            try:
                # Two threads may both make it; they make the same.
                self._table = IdRows(tuple(self.by_id))
            except ValueError:
                return None
        return self._table.of(item_ids)
