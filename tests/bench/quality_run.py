"""What parts of `make bench-quality` are given and give."""

from collections.abc import Callable
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
