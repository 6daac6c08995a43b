"""Keeps the share of searches that open the gate at a target, and lowers the target as load rises.

The threshold is a share of searches by expected gain: the quantile below which the gate stays closed. After
every decision it moves by `gain` times the decision less the target, up where the gate opened, down where it
did not (Gibbs and Candès, "Adaptive Conformal Inference Under Distribution Shift", NeurIPS 2021). As a
threshold above 1 opens for nobody and one below 0 for everybody, it stays within `gain` of [0, 1] by itself,
and so after n decisions of the model the rate is within (1 + 2 gain) / (gain n) of the target, whatever the
scores are: ties, drift or an adversary. Pure, but for `GateBudget`, which holds the state of one release.
"""

from collections.abc import Callable
from dataclasses import dataclass

from shards.release import GateRules

GAIN = 0.01
"""A step of one decision. The rate is on target within a few hundred searches after anything changes."""

_CALM_LOAD = 0.5
"""Up to this share of the router's places the target is the full one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetState:
    """The quantile from which on the gate opens at full target."""

    threshold: float


def started(target_rate: float) -> BudgetState:
    """Return the state of a release that nobody has searched yet: where its model's scores say."""
    return BudgetState(threshold=1.0 - target_rate)


def target_at(load: float, *, target_rate: float, least_rate: float) -> float:
    """Return the share of searches to open at a load, the share of the router's places that are taken.

    The target up to half load, then falling in a straight line to the least rate at full load.
    """
    over = min(1.0, max(0.0, (load - _CALM_LOAD) / (1.0 - _CALM_LOAD)))
    return target_rate + over * (min(least_rate, target_rate) - target_rate)


def closed_share(state: BudgetState, *, target: float, target_rate: float) -> float:
    """Return the quantile from which on the gate opens now: at once higher by what the target is lower."""
    return state.threshold + (target_rate - target)


def observed(state: BudgetState, *, opened: bool, target: float, gain: float = GAIN) -> BudgetState:
    """Return the state after a decision."""
    moved = state.threshold + gain * (float(opened) - target)
    # Decisions of rules alone could push it on for ever; those of the model never reach these ends.
    return BudgetState(threshold=min(1.0 + gain, max(-1.0 - gain, moved)))


class GateBudget:
    """The budget of one release on this router; `load` tells which share of its places is taken."""

    def __init__(self, rules: GateRules, load: Callable[[], float]) -> None:
        self.rules = rules
        self._load = load
        self.state = started(rules.target_rate)

    @property
    def closed_share(self) -> float:
        """Return the quantile from which on the gate opens now."""
        return closed_share(self.state, target=self._target, target_rate=self.rules.target_rate)

    def observe(self, *, opened: bool) -> None:
        """Count a decision, whoever made it: rules use up the budget too."""
        self.state = observed(self.state, opened=opened, target=self._target)

    @property
    def _target(self) -> float:
        rules = self.rules
        return target_at(self._load(), target_rate=rules.target_rate, least_rate=rules.least_rate)
