"""When to try again: exponential back-off with full jitter."""

import random
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Exponential back-off with full jitter: uniform in [0, min(cap, base · 2^attempt)].

    Source: Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog 2015.
    """

    base_s: float = 0.05
    cap_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.base_s <= self.cap_s:
            raise ValueError(f"0 < base_s <= cap_s does not hold: {self.base_s}, {self.cap_s}")

    def delay_s(self, attempt: int, rng: random.Random) -> float:
        """Return how long to wait after the failed `attempt`, counted from 0."""
        return rng.uniform(0, min(self.cap_s, self.base_s * 2 ** min(attempt, 32)))
