"""What only a periodic plan does: spread replicas over nodes, then relieve the shards with most to do."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shards.planner_board import DIMENSIONS, HOST, LOAD, Board
from shards.planner_churn import Budget
from shards.planner_facts import Limits
from shards.planner_target import Targets

_PASSES = 8
_TRIED = 24
"""Units of a shard that are tried for one move; the best come first, so more would not find much."""


def spread(board: Board, targets: Targets, budget: Budget) -> None:
    """Move second replicas off a node where another node has room for them, from the fullest shard first."""
    for model, holders in enumerate(board.holders):
        if len({int(board.node_of[s]) for s in holders}) == len(holders):
            continue
        for source in sorted(holders, key=lambda s: (-int(board.weight[HOST, s]), s)):
            others = board.same_node(model, leaving=source)
            if not others[source]:
                continue
            target = targets.best(model, leaving=source, among=others == 0)
            if target is not None and budget.spend([model], target, source):
                node = board.shards[source].node
                board.add(model, target, f"spread: node {node} holds {others[source] + 1} replicas", source)


@dataclass(frozen=True, slots=True)
class _Step:
    """Replicas of bundles with the same releases, which move together so that one shard keeps all stages."""

    models: tuple[int, ...]
    source: int
    target: int
    reason: str


class Balance:
    """Moves units off the shards that are far above the mean, each to a shard that stays below the first."""

    def __init__(self, board: Board, targets: Targets, budget: Budget, limits: Limits) -> None:
        self.board, self.targets, self.budget, self.limits = board, targets, budget, limits
        scale = targets.scale
        answering = max(1, int(board.gains.sum()))
        if board.weight[LOAD][board.gains].sum() / answering < limits.quiet_load * 1e6:
            scale[LOAD] = 0
        self._refused = False

    def run(self) -> None:
        """Relieve shards, the most pressed first, until none can be helped any more."""
        for _ in range(_PASSES):
            pressure = np.where(self.board.gains, self.targets.pressure().max(axis=0, initial=0), 0)
            donors = np.flatnonzero(pressure > 1 + self.limits.imbalance_trigger + 1e-9)
            order = sorted(donors.tolist(), key=lambda s: (-pressure[s], s))
            if not sum(self._relieve(source) for source in order):
                return

    def _relieve(self, source: int) -> bool:
        """Move what helps off one shard; return whether anything moved."""
        before = self._pressure(source)
        steps: list[_Step] = []
        while self._pressure(source) > 1 + self.limits.imbalance_goal + 1e-9:
            step = self._next_step(source)
            if step is None:
                break
            self._carry(step.models, step.source, step.target)
            steps.append(step)
        worth = before - self._pressure(source) >= self.limits.imbalance_gain - 1e-9
        for step in reversed(steps):
            self._carry(step.models, step.target, step.source)
        return worth and self._apply(steps)

    def _apply(self, steps: list[_Step]) -> bool:
        """Carry out the steps for good as long as the budget allows; the others wait."""
        for done, step in enumerate(steps):
            if not self.budget.spend(step.models, step.target, step.source):
                self.budget.deferred += sum(len(later.models) for later in steps[done + 1 :])
                return done > 0
            for model in step.models:
                self.board.add(model, step.target, step.reason, step.source)
        return bool(steps)

    def _carry(self, models: tuple[int, ...], source: int, target: int) -> None:
        for model in models:
            self.board.take(model, source)
            self.board.put(model, target)

    def _pressure(self, shard: int) -> float:
        return float(self.targets.pressure()[:, shard].max())

    def _next_step(self, source: int) -> _Step | None:
        pressure = self.targets.pressure()[:, source]
        hot = int(pressure.argmax())
        for models in self._units(source, hot, float(pressure[hot]) - 1):
            target = self._target(models, source, float(pressure[hot]))
            if target is not None:
                there = self.targets.pressure()[hot, target]
                reason = (
                    f"balance: {self.board.name(source)} has {pressure[hot]:.2f} times the mean "
                    f"{DIMENSIONS[hot]}, {self.board.name(target)} {there:.2f} times"
                )
                return _Step(models, source, target, reason)
        return None

    def _units(self, source: int, hot: int, excess: float) -> Iterator[tuple[int, ...]]:
        """Yield what may move together: what relieves most without going below the mean, at fewest bytes."""
        board = self.board
        units: dict[frozenset[str] | int, list[int]] = defaultdict(list)
        for model in sorted(board.held[source]):
            if not board.models[model].optional:
                units[board.models[model].releases or model].append(model)
        scale = float(self.targets.scale[hot, source])
        ranked = []
        for models in units.values():
            weight = board.need(models).weight
            relief = min(weight[hot] * scale, excess)
            if weight[hot]:
                ranked.append((-relief, weight[HOST], tuple(models)))
        yield from (models for _, _, models in sorted(ranked)[:_TRIED])

    def _target(self, models: tuple[int, ...], source: int, below: float) -> int | None:
        """Return a shard that can take all, is no worse company for them and stays under that pressure."""
        board, need = self.board, self.board.need(models)
        mask = board.fits(need)
        mask[source] = False
        penalty = np.zeros(len(board.shards), np.int64)
        for model in models:
            mask[list(board.holders[model])] = False
            nodes, group = board.same_node(model, source), board.same_group(model, source)
            mask &= (nodes <= nodes[source]) & (group <= group[source])
            for shard, mates in board.mates(model):
                penalty[shard] -= mates
        pressure = self.targets.pressure_with(need)
        mask &= pressure < below - 1e-9
        calm = mask & (pressure <= 1 + self.limits.imbalance_goal)
        return self.targets.least(need, calm if calm.any() else mask, penalty)
