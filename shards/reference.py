"""How scores and features of a bundle were spread in training, and how far live ones are from that.

File: reference.json, written by training from searches that nothing was trained on. The bins of a column lie
between the deciles of the reference, with one below its least and one above its greatest value.

The population stability index (Siddiqi, "Credit Risk Scorecards", 2006) is the sum over bins of
(live - reference) * ln(live / reference), shares smoothed by half a search. The Kolmogorov-Smirnov statistic
is the largest difference of the distribution functions where bins end. Values of one search depend on each
other: a search has a weight of 1 however many values it brings, and searches are what is counted.

Legend: E = ends of bins, E + 1 = bins, V = values of one search.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.errors import CorruptBundle
from shards.json_codec import from_json, parse, render, to_json
from shards.live_quality import Drift

REFERENCE_FILE = "reference.json"

_DECILES = np.linspace(0.0, 1.0, 11)
_KS_1_PERCENT = 1.63
"""Asymptotic quantile of the two-sample statistic times sqrt(n m / (n + m))."""

Values = NDArray[np.floating[Any]]
Shares = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: the ends of its bins [E], rising, and the share of each bin [E + 1], which add up to 1.

    A bin holds its upper end.
    """

    ends: tuple[float, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.shares) != len(self.ends) + 1:
            raise ValueError("there must be one more share than ends")
        if not all(map(math.isfinite, (*self.ends, *self.shares))) or min(self.shares) < 0:
            raise ValueError("ends and shares must be finite, and shares not negative")
        if any(a >= b for a, b in zip(self.ends, self.ends[1:], strict=False)):
            raise ValueError("ends must rise")
        if abs(sum(self.shares) - 1.0) > 1e-6:
            raise ValueError("shares must add up to 1")

    def binned(self, value_V: Values) -> Shares:
        """Return the share of each bin [E + 1] among the finite values; zeros where there is none."""
        finite = value_V[np.isfinite(value_V)]
        counts = np.bincount(np.searchsorted(self.ends, finite, side="left"), minlength=len(self.shares))
        return counts / max(len(finite), 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """The columns of a bundle, and of how many searches they tell."""

    searches: int
    columns: Mapping[str, Column]

    def __post_init__(self) -> None:
        if self.searches < 1:
            raise ValueError("searches must be at least 1")

    def drift(self, name: str, sum_E: Shares, searches: int, psi: float) -> Drift:
        """Return how far a column is from the reference; `sum_E` adds up what `binned` gave for searches."""
        column = self.columns[name]
        bins = len(column.shares)
        expected = _smooth(np.asarray(column.shares) * self.searches, self.searches, bins)
        actual = _smooth(sum_E, searches, bins)
        index = float(((actual - expected) * np.log(actual / expected)).sum())
        live = sum_E / max(searches, 1)
        ks = float(np.abs(np.cumsum(live) - np.cumsum(column.shares)).max()) if searches else 0.0
        noise = _KS_1_PERCENT * math.sqrt((searches + self.searches) / (max(searches, 1) * self.searches))
        return Drift(column=name, psi=index, ks=ks, searches=searches, drifted=index > psi and ks > noise)


def _smooth(weight_E: Shares, searches: int, bins: int) -> Shares:
    smoothed: Shares = (weight_E + 0.5) / (searches + 0.5 * bins)
    return smoothed


def reference_of(searches: Sequence[Mapping[str, Values]]) -> Reference | None:
    """Return the reference of what searches had by column; None where none had anything finite."""
    by_column: dict[str, list[Values]] = {}
    for values in searches:
        for name, value_V in values.items():
            if np.isfinite(value_V).any():
                by_column.setdefault(name, []).append(value_V)
    if not by_column:
        return None
    return Reference(
        searches=max(map(len, by_column.values())),
        columns={name: _column(values) for name, values in by_column.items()},
    )


def _column(searches: Sequence[Values]) -> Column:
    values = np.concatenate(searches).astype(np.float64)
    decile_E = np.quantile(values[np.isfinite(values)], _DECILES)
    # A bin holds its upper end, and the least value must not fall into the bin of what is less.
    below = np.nextafter(decile_E[0].astype(np.float32), np.float32(-np.inf)).astype(np.float64)
    ends = tuple(np.unique([below, *decile_E]).tolist())
    empty = Column(ends=ends, shares=(1.0, *(0.0 for _ in ends)))
    shares = np.mean([empty.binned(value_V) for value_V in searches], axis=0)
    return Column(ends=ends, shares=tuple((shares / shares.sum()).tolist()))


def write_reference(folder: Path, reference: Reference) -> None:
    """Write the file."""
    (folder / REFERENCE_FILE).write_bytes(render(to_json(reference)))


def read_reference(path: Path) -> Reference:
    """Return the reference at `path`; CorruptBundle names the file where it is none."""
    try:
        return from_json(Reference, parse(path.read_bytes()), "reference")
    except (OSError, ValueError) as error:
        raise CorruptBundle(path.name, f"cannot be read: {error}") from error
