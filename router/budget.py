"""How a search spends its time: each stage's time and how many candidates it can afford."""

import time
from collections.abc import Callable
from dataclasses import dataclass

RESERVE_S = 0.015
"""Kept back to put the answer together and send it; gRPC rounds timeouts of seconds up, by up to 10 ms."""

LEAST_CALL_S = 0.002
"""A call with less time than this is not worth sending."""

_COMFORTABLE = 0.5
"""Budgets are generous: with this share of one left, a stage still scores all its candidates."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment of `clock`, in seconds, until which an answer is of use."""

    at_s: float
    clock: Callable[[], float] = time.monotonic

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> "Deadline":
        """Return the deadline so many seconds from now."""
        return cls(clock() + seconds, clock)

    def remaining_s(self) -> float:
        """Return the seconds that are left; negative when it has passed."""
        return self.at_s - self.clock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowance:
    """What one stage may use."""

    timeout_s: float
    candidates: int


def allow(*, remaining_s: float, budget_s: float, wanted: int, least: int) -> Allowance | None:
    """Return the time and candidates of a stage, or None when there is no time left to ask.

    The stage gets its budget or what remains after the reserve. Candidates halve each time the
    time does, once half of the budget is gone, but never below `least`: in steps, so that answers
    under slight pressure stay equal.
    """
    timeout_s = min(budget_s, remaining_s - RESERVE_S)
    if timeout_s < min(LEAST_CALL_S, budget_s):
        return None
    candidates, share = wanted, timeout_s / budget_s
    while share < _COMFORTABLE and candidates > least:
        candidates, share = max(least, candidates // 2), share * 2
    return Allowance(timeout_s=timeout_s, candidates=min(candidates, wanted))
