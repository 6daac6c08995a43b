"""Several runs in one figure: their mean, and how far they lie apart."""

from collections.abc import Sequence

import numpy as np


def mean_of(values: Sequence[float]) -> float:
    """Return the mean."""
    return float(np.mean(values))


def spread_of(values: Sequence[float]) -> dict[str, float | list[float]]:
    """Return the mean, the standard deviation between runs, and the runs themselves."""
    return {
        "mean": round(mean_of(values), 5),
        "deviation": round(float(np.std(values, ddof=1)) if len(values) > 1 else 0.0, 5),
        "runs": [round(value, 5) for value in values],
    }
