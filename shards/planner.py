"""Which shard holds which bundle: a stateless, deterministic function of what is known.

The plan is made in named phases: keep what is fine, drop what is too much, replace what is missing, empty
what is drained, follow the load; in a periodic plan also spread over nodes and balance; last what is
optional. Then it is validated. A second call with the first one's answer as `previous` changes nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest

from shards import planner_balance, planner_repair
from shards.planner_board import HOST, Board
from shards.planner_churn import Budget
from shards.planner_demand import Demand, demands
from shards.planner_facts import (
    Assigned,
    Churn,
    Limits,
    Mode,
    ModelFacts,
    Plan,
    PlannedMove,
    ShardFacts,
    Unplaced,
)
from shards.planner_target import Targets, total_weight
from shards.planner_validation import validate
from shards.release import ModelVersion

__all__ = [
    "Assigned",
    "Churn",
    "Limits",
    "Mode",
    "ModelFacts",
    "Plan",
    "PlannedMove",
    "ShardFacts",
    "Unplaced",
    "plan",
]


def plan(
    now_ms: int,
    shards: Sequence[ShardFacts],
    models: Sequence[ModelFacts],
    load: Mapping[ModelVersion, float],
    previous: Assigned,
    limits: Limits,
) -> Plan:
    """Return the placement nearest to `previous` within `limits`; `load` is in requests per second."""
    board = Board(now_ms, shards, models, load, limits)
    before = [len(set(previous.get(facts.model, ()))) for facts in board.models]
    demand = demands(board, before, limits)
    budget = Budget(board, limits)
    planner_repair.keep(board, previous)
    planner_repair.trim(board, demand)
    unplaced = tuple(_change(board, budget, demand, limits))
    assignments = {m.model: _ids(board, board.holders[i]) for i, m in enumerate(board.models)}
    answer = Plan(
        assignments=assignments,
        moves=tuple(_moves(board, assignments, previous)),
        unplaced=tuple(sorted(unplaced, key=lambda u: (u.model, u.missing, u.reason))),
        deferred=budget.deferred,
    )
    validate(answer, board, previous, demand)
    return answer


def _change(board: Board, budget: Budget, demand: Sequence[Demand], limits: Limits) -> Iterator[Unplaced]:
    """Run the phases that give bundles to shards; yield what finds no room."""
    expected = total_weight(board, [d.wanted for d in demand])
    targets = Targets(board, board.scale(expected))
    yield from planner_repair.fill(board, targets, budget, demand)
    yield from planner_repair.drain(board, targets, budget, demand)
    yield from planner_repair.grow(board, targets, budget, demand)
    if limits.mode is Mode.PERIODIC:
        planner_balance.spread(board, targets, budget)
        held = [int(w) for w in board.weight[:, board.gains].sum(axis=1)]
        planner_balance.Balance(board, Targets(board, board.scale(held)), budget, limits).run()
    yield from planner_repair.place_optional(board, targets, budget, demand)


def _moves(board: Board, assignments: Assigned, previous: Assigned) -> Iterator[PlannedMove]:
    """Pair the replicas that go with those that come, bundle by bundle; last those that nobody wants."""
    for number, facts in enumerate(board.models):
        before, after = set(previous.get(facts.model, ())), set(assignments[facts.model])
        if before != after:
            yield from _moves_of(board, number, sorted(before - after), sorted(after - before))
    for model in sorted(previous.keys() - board.model_number.keys()):
        for shard_id in sorted(set(previous[model])):
            yield PlannedMove(
                model=model, from_shard=shard_id, to_shard="", memory_bytes=0, reason="no release uses it"
            )


def _moves_of(board: Board, model: int, gone: list[str], come: list[str]) -> Iterator[PlannedMove]:
    pairs: list[tuple[str, str]] = []
    for to_shard in come:
        source, _ = board.added[model, board.shard_number[to_shard]]
        if source is not None and board.name(source) in gone:
            pairs.append((board.name(source), to_shard))
    left = [shard for shard in gone if shard not in {source for source, _ in pairs}]
    more = [shard for shard in come if shard not in {target for _, target in pairs}]
    for from_shard, to_shard in sorted([*pairs, *zip_longest(left, more, fillvalue="")]):
        yield PlannedMove(
            model=board.models[model].model,
            from_shard=from_shard,
            to_shard=to_shard,
            memory_bytes=board.needs[model].weight[HOST],
            reason=_reason(board, model, from_shard, to_shard),
        )


def _reason(board: Board, model: int, from_shard: str, to_shard: str) -> str:
    if not from_shard:
        return board.added[model, board.shard_number[to_shard]][1]
    number = board.shard_number.get(from_shard)
    return board.dropped[model, number] if number is not None else f"repair: {from_shard} is gone"


def _ids(board: Board, holders: set[int]) -> tuple[str, ...]:
    return tuple(board.name(shard) for shard in sorted(holders))
