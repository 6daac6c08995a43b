"""Counts and distributions of one process: noting costs next to nothing, and whoever reads does the rest.

Each is written by one thread only, and may be read by any: a dictionary is copied in one step of Python's.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field

Labels = tuple[str, ...]
"""Values of labels, in the order of their names."""

OTHER = "other"
"""Value of every label of the one series that takes in what would be one too many."""

MOST_SERIES = 2_000
"""So many combinations of values at most: a name that callers can choose must not fill the memory."""

CALL_BOUNDS_S = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03),
    *(0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0),
)
"""Upper bounds of buckets for searches and calls, in seconds."""

LOAD_BOUNDS_S = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0)
"""Upper bounds of buckets for loads of bundles, in seconds."""

SHARE_BOUNDS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
"""Upper bounds of buckets for probabilities."""


class Counts:
    """How often something happened, by the values of its labels."""

    __slots__ = ("_counts", "_most", "labels")

    def __init__(self, *labels: str, most_series: int = MOST_SERIES) -> None:
        self.labels = labels
        self._most = most_series
        self._counts: dict[Labels, int] = {} if labels else {(): 0}

    def add(self, *values: str) -> None:
        """Count one more."""
        try:
            self._counts[values] += 1
        except KeyError:
            values = _bounded(values, self.labels, len(self._counts), self._most)
            self._counts[values] = self._counts.get(values, 0) + 1

    def read(self) -> Sequence[tuple[Labels, int]]:
        """Return the counts so far."""
        return list(self._counts.items())


@dataclass(slots=True)
class _Series:
    buckets: list[int]
    total: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Distribution:
    """How many values are at most each of the bounds, and their sum; `cumulative` ends with all of them."""

    bounds: tuple[float, ...]
    cumulative: tuple[int, ...]
    total: float = field(default=0.0)


class Distributions:
    """How values are spread, most of them seconds, by the values of their labels."""

    __slots__ = ("_bounds", "_most", "_series", "labels")

    def __init__(
        self, *labels: str, bounds: tuple[float, ...] = CALL_BOUNDS_S, most_series: int = MOST_SERIES
    ) -> None:
        self.labels = labels
        self._bounds = bounds
        self._most = most_series
        self._series: dict[Labels, _Series] = {}
        if not labels:
            self._opened(())

    def observe(self, value: float, *values: str) -> None:
        """Note one more."""
        series = self._series.get(values) or self._opened(values)
        series.buckets[bisect_left(self._bounds, value)] += 1
        series.total += value

    def read(self) -> Sequence[tuple[Labels, Distribution]]:
        """Return the distributions so far."""
        return [(values, self._distribution(series)) for values, series in list(self._series.items())]

    def _opened(self, values: Labels) -> _Series:
        values = _bounded(values, self.labels, len(self._series), self._most)
        return self._series.setdefault(values, _Series([0] * (len(self._bounds) + 1)))

    def _distribution(self, series: _Series) -> Distribution:
        counted, cumulative = 0, []
        for count in list(series.buckets):
            counted += count
            cumulative.append(counted)
        return Distribution(bounds=self._bounds, cumulative=tuple(cumulative), total=series.total)


def _bounded(values: Labels, labels: Labels, series: int, most: int) -> Labels:
    assert len(values) == len(labels), f"{values} are not values of {labels}"
    return values if series < most else (OTHER,) * len(labels)
