"""Sparse matrices as rows of columns and values, for sums over many of them: all that the tables need.

Legend: R = rows, W = width, E = entries.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.grouped_rows import entries_of

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_FEW = 8
"""One entry in so many columns, or fewer, are sorted sooner than all columns are counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseRows:
    """Row `r` has the entries from starts[r] to starts[r + 1]: `column_E` and `value_E`, columns rising."""

    starts: Ints
    column_E: Ints
    value_E: Floats
    width: int

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def entry_rows(self) -> Ints:
        """Return the row of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def row(self, row: int) -> tuple[Ints, Floats]:
        """Return the columns and values of one row."""
        at = slice(self.starts[row], self.starts[row + 1])
        return self.column_E[at], self.value_E[at]

    def transposed(self) -> "SparseRows":
        """Return the matrix with rows and columns exchanged."""
        return sparse_rows(self.column_E, self.entry_rows, self.value_E, rows=self.width, width=len(self))

    def weighted_sum(self, rows: Ints, weights: Floats) -> Floats:
        """Return the sum of some rows, each times its weight, as one dense row [W]."""
        at, counts = entries_of(self.starts, rows)
        values = self.value_E[at] * np.repeat(weights, counts)
        return np.bincount(self.column_E[at], weights=values, minlength=self.width).astype(np.float64)

    def weighted_entries(self, rows: Ints, weights: Floats) -> tuple[Ints, Floats]:
        """Return where the sum of some rows, each times its weight, has entries, rising, and their values."""
        at, counts = entries_of(self.starts, rows)
        column_E, values = self.column_E[at], self.value_E[at] * np.repeat(weights, counts)
        if len(at) * _FEW > self.width:
            total_W = np.bincount(column_E, weights=values, minlength=self.width).astype(np.float64)
            met_M = np.flatnonzero(np.bincount(column_E, minlength=self.width))
            return met_M, total_W[met_M]
        met_M, place_E = np.unique(column_E, return_inverse=True)
        return met_M, np.bincount(place_E, weights=values, minlength=len(met_M)).astype(np.float64)

    def dense(self, rows: Ints) -> NDArray[np.float32]:
        """Return some rows in full [len(rows), W]."""
        at, counts = entries_of(self.starts, rows)
        found = np.zeros((len(rows), self.width), np.float32)
        found[np.repeat(np.arange(len(rows)), counts), self.column_E[at]] = self.value_E[at]
        return found

    def norms(self) -> Floats:
        """Return the Euclidean length of each row [R]."""
        return np.sqrt(np.bincount(self.entry_rows, weights=self.value_E**2, minlength=len(self)))


def sparse_rows(row_E: Ints, column_E: Ints, value_E: Floats, *, rows: int, width: int) -> SparseRows:
    """Return the matrix of these entries, in any order, no place twice."""
    order = np.lexsort((column_E, row_E))
    return SparseRows(
        starts=np.searchsorted(row_E[order], np.arange(rows + 1)),
        column_E=column_E[order],
        value_E=value_E[order].astype(np.float64),
        width=width,
    )
