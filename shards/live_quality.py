"""How good the answers of a bundle are while it serves: recall beside an exact search, and drift.

Figures are told with how many searches they come from; docs/live-quality.md.
"""

import math
from dataclasses import dataclass

_Z_95 = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class QualitySettings:
    """What a shard watches of what it answers; `share` 0 watches nothing.

    Of the calls of each stage a `share` is looked at again beside the request path: at most `queue` wait, and
    one that finds no idle moment within `patience_s` is dropped. Figures are those of the last `window_s`.
    An alarm needs `least_searches`; `min_recall` 0 asks for no recall. A distribution has drifted where its
    population stability index is above `psi` and the Kolmogorov-Smirnov test calls it another one.
    """

    share: float = 0.01
    queue: int = 64
    patience_s: float = 1.0
    window_s: float = 3600.0
    least_searches: int = 200
    min_recall: float = 0.0
    psi: float = 0.25

    def __post_init__(self) -> None:
        for name in ("share", "min_recall"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be 0 to 1")
        if self.queue < 1 or self.least_searches < 1:
            raise ValueError("queue and least_searches must be at least 1")
        for name in ("patience_s", "window_s", "psi"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recall:
    """The mean recall of some searches, and the ends of its 95 % interval.

    The interval is Wilson's with a search for a trial: what lies between 0 and 1 spreads no wider than what
    is either.
    """

    mean: float
    low: float
    high: float
    searches: int

    @classmethod
    def of(cls, total: float, searches: int) -> "Recall":
        """Return the recall of `searches`, at least one, whose recalls add up to `total`."""
        mean, z2 = total / searches, _Z_95**2
        middle = (mean + z2 / (2 * searches)) / (1 + z2 / searches)
        spread = max(mean * (1 - mean), 0.0) / searches + z2 / (4 * searches**2)
        half = _Z_95 * math.sqrt(spread) / (1 + z2 / searches)
        low, high = max(0.0, middle - half), min(1.0, middle + half)
        return cls(mean=mean, low=min(low, mean), high=max(high, mean), searches=searches)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """How far one column, a score or a feature, is from what it was in training."""

    column: str
    psi: float
    """Population stability index over the bins of the reference."""
    ks: float
    """Largest difference of the two distribution functions at the ends of the bins."""
    searches: int
    drifted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveQuality:
    """What is known of a replica: recall on its goldens and live, and the columns that drifted most."""

    golden: Recall | None = None
    """None for an engine that has no exact answer to compare with."""
    live: Recall | None = None
    """None until a search was looked at."""
    recall_alarm: bool = False
    """Whether the live recall is surely below what is asked for."""
    drifts: tuple[Drift, ...] = ()


UNKNOWN = LiveQuality()
"""Of what nobody watches."""


def too_low(quality: LiveQuality, least: float, least_searches: int) -> Recall | None:
    """Return the recall of a replica that is below the `least`; the live one counts if searches suffice."""
    found = quality.golden
    if quality.live is not None and quality.live.searches >= least_searches:
        found = quality.live
    return found if found is not None and found.mean < least else None
