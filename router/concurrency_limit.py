"""How many requests a router works on at once, by how long they take: a limit that finds itself. Pure.

Source: the gradient limit of Netflix's concurrency-limits ("Performance Under Load", 2018). While requests
take as long as they usually do the limit grows; where they take longer they queue somewhere, and it falls.
What usually is drifts with the load, so the limit also falls by what admits no doubt: requests that found no
time or no room, and an event loop that comes late to everything, refusals included.
"""

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitSettings:
    """A limit from `floor` to `ceiling`, which `start`s in between.

    Requests may take `tolerance` times as long as usual, and `patience_s` in any case; the event loop may
    be `lag_s` late on average, and a share of `most_overdue` of the requests may find no time or no room.
    Windows of `window_s` are looked at, and the limit falls once one of these did not hold for
    `standing_s`: what passes, say while a shard starts beside this process, is waited for. What usually
    is rises over `rise_s` while half of the places are free, and over `drift_s` under load.
    """

    floor: int = 16
    start: int = 256
    ceiling: int = 256
    tolerance: float = 2.0
    patience_s: float = 0.2
    lag_s: float = 0.01
    window_s: float = 0.1
    most_overdue: float = 0.05
    standing_s: float = 2.0
    rise_s: float = 10.0
    drift_s: float = 60.0

    def __post_init__(self) -> None:
        if not 1 <= self.floor <= self.start <= self.ceiling:
            raise ValueError("1 <= floor <= start <= ceiling does not hold")
        if self.tolerance < 1 or min(self.lag_s, self.window_s, self.rise_s, self.drift_s) <= 0:
            raise ValueError("tolerance must be at least 1, and times positive")
        if min(self.patience_s, self.standing_s) < 0:
            raise ValueError("patience_s and standing_s must not be negative")
        if not 0 <= self.most_overdue <= 1:
            raise ValueError("most_overdue must be 0 to 1")

    def below(self, ceiling: int) -> "LimitSettings":
        """Return the settings with this ceiling, below which floor and start give way."""
        return replace(self, ceiling=ceiling, start=min(self.start, ceiling), floor=min(self.floor, ceiling))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What became of the requests that ended lately.

    `took_s` is their mean time, of those that were `answered`; `overdue` found no time or no room. At most
    `peak` were in flight at once, and the event loop was `lag_s` late on average.
    """

    answered: int
    took_s: float
    overdue: int
    peak: int
    lag_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """The limit, what requests usually take (None before the first), and for how long it was strained."""

    size: float
    usual_s: float | None = None
    strained_s: float = 0.0

    @property
    def requests(self) -> int:
        """Return how many requests may be in flight."""
        return int(self.size)


def step(limit: Limit, window: Window, settings: LimitSettings) -> Limit:
    """Return the limit after one more window."""
    usual_s = _usual_s(limit, window, settings)
    if 2 * window.peak < limit.size:
        # What is not used tells nothing of what could be.
        return replace(limit, usual_s=usual_s, strained_s=0.0)
    share = _share_left(window, usual_s, settings)
    strained_s = limit.strained_s + settings.window_s if share < 1.0 else 0.0
    size = limit.size
    if strained_s > settings.standing_s:
        size *= share
    elif not strained_s and window.answered:
        size += _SMOOTHING * math.sqrt(size)
    size = min(max(size, settings.floor), settings.ceiling)
    return Limit(size=size, usual_s=usual_s, strained_s=strained_s)


def _share_left(window: Window, usual_s: float | None, settings: LimitSettings) -> float:
    """Return what a window that was strained leaves of the limit; 1 where nothing speaks against it."""
    overdue = window.overdue / max(1, window.answered + window.overdue)
    if overdue > settings.most_overdue:
        return max(_STEEPEST, 1.0 - overdue)
    if window.lag_s > settings.lag_s:
        return max(_STEEPEST, math.sqrt(settings.lag_s / window.lag_s))
    if not window.answered or usual_s is None:
        return 1.0
    allowed_s = max(settings.tolerance * usual_s, settings.patience_s)
    gradient = max(_STEEPEST, min(1.0, allowed_s / max(window.took_s, _LEAST_S)))
    return 1.0 - _SMOOTHING * (1.0 - gradient)


def _usual_s(limit: Limit, window: Window, settings: LimitSettings) -> float | None:
    """Return what requests usually take: soon where it is less, slowly where it is more.

    A queue, too, makes them take longer, and must not become what is usual.
    """
    if not window.answered:
        return limit.usual_s
    if limit.usual_s is None:
        return window.took_s
    rise_s = settings.rise_s if 2 * window.peak < limit.size else settings.drift_s
    weight = _SMOOTHING if window.took_s < limit.usual_s else min(1.0, settings.window_s / rise_s)
    return limit.usual_s + weight * (window.took_s - limit.usual_s)


_LEAST_S = 1e-9
_STEEPEST = 0.5
_SMOOTHING = 0.2
