"""Completion relative to what items of a length come to: p / f(length).

Long items are finished less often whoever watches them, so a completion rate alone ranks short ones first.
f is a line through points, fitted in training; beyond the first and the last point it stays as it is there.

Legend: C = items, K = points.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthAdjustment:
    """The item column that holds lengths, and f at points of growing length."""

    column: str
    lengths: tuple[float, ...]
    expected: tuple[float, ...]
    overall: float
    """What f is where an item has no length."""

    def __post_init__(self) -> None:
        if not self.lengths or len(self.lengths) != len(self.expected):
            raise ValueError("lengths and expected must be as many, and at least one")
        if any(b <= a for a, b in itertools.pairwise(self.lengths)):
            raise ValueError("lengths must grow")
        if not all(0 < value < float("inf") for value in (*self.expected, self.overall)):
            raise ValueError("expected and overall must be positive")

    def expected_of(self, length_C: Sequence[object] | NDArray[np.float64]) -> Floats:
        """Return f of each length [C]; a missing one is None or NaN."""
        values_C = np.array([np.nan if v is None else v for v in length_C], np.float64)
        expected_C = np.interp(values_C, self.lengths, self.expected)
        return np.where(np.isnan(values_C), self.overall, expected_C).astype(np.float32)
