"""How much more than one attempt a call may cost: a share of all calls, so that retries add no storm."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrySettings:
    """Further attempts are `share` of the calls at most, over a `reserve` for bad moments."""

    share: float = 0.2
    reserve: float = 100.0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or self.reserve < 0:
            raise ValueError("share must be 0 to 1, reserve not negative")


class ShareBudget:
    """A token bucket that calls fill and further attempts empty, as Finagle's `RetryBudget`."""

    __slots__ = ("_reserve", "_share", "_tokens")

    def __init__(self, *, share: float, reserve: float) -> None:
        self._share = share
        self._reserve = reserve
        self._tokens = reserve

    def earn(self) -> None:
        """Count a call."""
        if self._tokens < self._reserve:
            self._tokens = min(self._reserve, self._tokens + self._share)

    def spend(self) -> bool:
        """Pay for another attempt; returns whether it is affordable."""
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
