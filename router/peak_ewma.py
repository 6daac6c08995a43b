"""How long a replica takes to answer: a latency that rises at once and falls with time. Pure.

Source: the "peak EWMA" load metric of Twitter's Finagle. A mean would take many slow answers to notice a
replica that became slow; and a replica that nobody asks any more must be tried again some day.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PeakEwma:
    """A latency of `value_s` seconds, as it was at the monotonic second `at_s`."""

    value_s: float
    at_s: float

    def updated(self, latency_s: float, now: float, decay_s: float) -> "PeakEwma":
        """Return the latency after one more answer: a slower one counts in full, a faster one by its age.

        After `decay_s` without an answer an older value weighs 1/e.
        """
        left_s = self.at(now, decay_s)
        if latency_s >= left_s:
            return PeakEwma(latency_s, now)
        weight = math.exp((self.at_s - now) / decay_s) if now > self.at_s else 1.0
        # Answers that come at once weigh something, too; else a burst would never bring a peak down.
        weight = min(weight, _MOST_WEIGHT)
        return PeakEwma(self.value_s * weight + latency_s * (1.0 - weight), now)

    def at(self, now: float, decay_s: float) -> float:
        """Return the latency to expect now: what nobody has confirmed for a while is forgotten."""
        return self.value_s * math.exp((self.at_s - now) / decay_s) if now > self.at_s else self.value_s


_MOST_WEIGHT = 0.9
