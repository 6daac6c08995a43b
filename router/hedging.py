"""When a call that one replica has not answered goes to another one as well. Pure.

Source: Dean and Barroso, "The Tail at Scale", CACM 2013: hedged requests, sent after the 95th percentile of
what such calls take, so that they cost a few per cent more work.
"""

from dataclasses import dataclass

QUANTILE = 0.95

_HANG_SHARE = 0.3
"""Of a call's time, what a replica is waited for before it is asked whether it hangs."""

_SHORTEST_HANG_S, _LONGEST_HANG_S = 0.02, 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeSettings:
    """A hedge is sent after `margin` times the 95th percentile, but not before `least_s`.

    Hedges are `share` of the calls at most, over a reserve of `reserve`.
    """

    margin: float = 1.5
    least_s: float = 0.01
    share: float = 0.1
    reserve: float = 10.0

    def __post_init__(self) -> None:
        if self.margin < 1 or self.least_s < 0 or not 0 <= self.share <= 1 or self.reserve < 0:
            raise ValueError("margin must be at least 1, share 0 to 1, least_s and reserve not negative")


def hang_after_s(remaining_s: float) -> float:
    """Return how long to wait for a replica before the question is whether it answers anybody."""
    return min(max(_SHORTEST_HANG_S, _HANG_SHARE * remaining_s), _LONGEST_HANG_S)


def pauses_s(slow_s: float | None, remaining_s: float, settings: HedgeSettings) -> tuple[float, ...]:
    """Return how long to wait for a hedge, and from then on for the question whether the replica hangs.

    `slow_s` is the 95th percentile of calls of the kind, None where it is not known. One moment only where
    both coincide: a call that has hardly any time left is not worth two.
    """
    hang_s = hang_after_s(remaining_s)
    if slow_s is None:
        return (hang_s,)
    hedge_s = max(settings.least_s, settings.margin * slow_s)
    return (hedge_s, hang_s - hedge_s) if hedge_s < hang_s else (hang_s,)
