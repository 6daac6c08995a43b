"""Several runs in one figure: their mean, and how far they lie apart."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


def mean_of(values: Sequence[float]) -> float:
    """Return the mean."""
    return float(np.mean(values))


def spread_of(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean, the standard deviation between runs, and the runs themselves."""
    return {
        "mean": round(mean_of(values), 5),
        "deviation": round(float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, 5),
        "runs": [round(value, 5) for value in values],
    }


def spread_of_each(runs: Sequence[Mapping[str, float]]) -> dict[str, dict[str, Any]]:
    """Return the spread of every figure, by name, of runs that have the same ones."""
    return {name: spread_of([run[name] for run in runs]) for name in runs[0]}


def quantiles_ms(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile, in milliseconds."""
    p50, p99 = np.quantile(np.array(seconds) * 1000, [0.5, 0.99])
    return {"p50": round(float(p50), 3), "p99": round(float(p99), 3)}
