"""How many replicas each bundle is to have: what it must have, what its load asks for, what is too many."""

from collections.abc import Sequence
from dataclasses import dataclass

from shards.planner_board import Board
from shards.planner_facts import Limits, Mode


@dataclass(frozen=True, slots=True)
class Demand:
    """Replicas of one bundle: `least` at any price, `wanted` where the budget allows, never above `most`."""

    least: int
    wanted: int
    most: int


def demands(board: Board, before: Sequence[int], limits: Limits) -> list[Demand]:
    """Return the demand for every bundle, given how many replicas it had.

    In an emergency a bundle gets back what it lost as long as its load asks for it, and what it has above
    that may stay. Otherwise replicas follow the load: up at once, down when those left stay well below
    what they can take, so that a load that wavers changes nothing.
    """
    found = []
    for facts, load, had in zip(board.models, board.load, before, strict=True):
        least, most = limits.bounds(facts)
        asked = min(most, max(least, limits.replicas_for(load)))
        if limits.mode is Mode.EMERGENCY:
            found.append(Demand(least, max(least, min(asked, had)), most))
        else:
            relaxed = min(most, max(least, limits.replicas_for(load / limits.shrink_below)))
            found.append(Demand(least, asked, relaxed))
    return found
