"""What every part of `make bench-quality` is given and gives, and figures over several seeds."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.folders import cache_dir
from tests.bench.result import Check
from training.datasets import sources
from training.datasets.tables import Dataset


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityRun:
    """Where the data sets are, over how many seeds figures are means, and whether to run on little data."""

    data_dir: Path
    seeds: int = 3
    quick: bool = False

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds must be at least 1, not {self.seeds}")

    def load(self, name: str) -> Dataset:
        """Return a data set."""
        return sources.load(name, cache_dir=cache_dir(), data_dir=self.data_dir)


Part = Callable[[QualityRun], tuple[dict[str, Any], list[Check]]]
"""Returns figures and checks."""


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Return the mean of a figure over seeds, its standard deviation (0 of one), and each value."""
    found = list(values)
    deviation = statistics.stdev(found) if len(found) > 1 else 0.0
    return {"mean": statistics.fmean(found), "deviation": deviation, "values": found}


def spread_of_each(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Return the spread of every figure, by name, of runs that have the same ones."""
    return {name: spread(run[name] for run in runs) for name in runs[0]}
