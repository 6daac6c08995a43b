"""When to try again: exponential back-off with full jitter, and a budget that stops retry storms."""

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


class RetryBudget:
    """Lets a client retry only while most of its calls succeed.

    A token bucket as in gRPC's retry throttling (gRFC A6): a failure costs one token, a success gives
    back `refill`, and retries stop while half of the tokens or fewer are left.
    """

    def __init__(self, *, tokens: float = 10.0, refill: float = 0.1) -> None:
        self._most = tokens
        self._tokens = tokens
        self._refill = refill

    def failed(self) -> bool:
        """Pay for a failure; returns whether a retry is affordable."""
        self._tokens = max(0.0, self._tokens - 1)
        return self._tokens > self._most / 2

    def succeeded(self) -> None:
        """Earn for a success."""
        self._tokens = min(self._most, self._tokens + self._refill)
