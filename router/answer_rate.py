"""Whom a router lets in: those who can be answered in their time, by how many it answers a second. Pure.

By Little's law a request behind N others waits for N / rate, wherever they queue: here, on the way, or on a
shard. So nobody is refused for a queue that all in it can wait for, as when a shard starts beside the
router, and nobody let in to one in which time runs out.
"""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """Who may wait: a request whose wait will be at most a `share` of its time.

    `floor` requests are let in whatever the rate, and never more than `ceiling`. The rate is seen in windows
    of `window_s` in which at least `floor` were in flight at once: others tell how many came, not how many
    could be answered. It follows them over `rise_s` where they are higher and over `fall_s` where they are
    lower, and is forgotten after `forget_s` without one.
    """

    floor: int = 16
    ceiling: int = 256
    share: float = 0.15
    window_s: float = 0.1
    rise_s: float = 0.3
    fall_s: float = 2.0
    forget_s: float = 10.0

    def __post_init__(self) -> None:
        if not 1 <= self.floor <= self.ceiling:
            raise ValueError("1 <= floor <= ceiling does not hold")
        if not 0 < self.share <= 1:
            raise ValueError("share must be above 0, at most 1")
        if min(self.window_s, self.rise_s, self.fall_s, self.forget_s) <= 0:
            raise ValueError("window_s, rise_s, fall_s and forget_s must be positive")

    def below(self, ceiling: int) -> "LimitSettings":
        """Return the settings with this ceiling, below which the floor gives way."""
        return replace(self, ceiling=ceiling, floor=min(self.floor, ceiling))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What became of the requests of some `seconds`: how many were answered, and the most in flight."""

    seconds: float
    answered: int
    peak: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How many requests can be answered a second, None where not known, and for how long nobody saw that."""

    per_s: float | None = None
    quiet_s: float = 0.0


def step(rate: Rate, window: Window, settings: LimitSettings) -> Rate:
    """Return the rate after one more window."""
    seen = window.answered / window.seconds
    if window.peak < settings.floor:
        quiet_s = rate.quiet_s + window.seconds
        return Rate(per_s=rate.per_s if quiet_s <= settings.forget_s else None, quiet_s=quiet_s)
    if rate.per_s is None:
        return Rate(per_s=seen or None)
    over_s = settings.rise_s if seen > rate.per_s else settings.fall_s
    return Rate(per_s=rate.per_s + (seen - rate.per_s) * -math.expm1(-window.seconds / over_s))


def places(rate: Rate, time_s: float, settings: LimitSettings) -> int:
    """Return how many requests may be in flight for one more, which has so much time, to be let in."""
    if rate.per_s is None:
        return settings.ceiling
    return int(min(max(rate.per_s * settings.share * time_s, settings.floor), settings.ceiling))
