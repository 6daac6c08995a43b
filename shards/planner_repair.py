"""What every plan does: keep what is fine, drop what is too much, replace what is missing, empty drains."""

from collections.abc import Iterator, Sequence

from shards.planner_board import Board
from shards.planner_churn import Budget
from shards.planner_demand import Demand
from shards.planner_facts import Assigned, Unplaced
from shards.planner_target import Targets, sorted_by_size, why_not


def keep(board: Board, previous: Assigned) -> None:
    """Keep every replica whose bundle is wanted, whose shard is there and whose memory fits.

    Optional bundles come last, and those with fewest replicas first, so that memory that runs short costs
    rollbacks first and then second copies.
    """
    alive = {
        board.model_number[model]: sorted(
            board.shard_number[shard] for shard in set(shards) if shard in board.shard_number
        )
        for model, shards in previous.items()
        if model in board.model_number
    }
    for model in sorted(alive, key=lambda m: (board.models[m].optional, len(alive[m]), m)):
        for shard in alive[model]:
            if board.stays(model, shard):
                board.put(model, shard)
            else:
                board.dropped[model, shard] = f"repair: {board.name(shard)} has too little memory for it"


def trim(board: Board, demand: Sequence[Demand]) -> None:
    """Drop replicas beyond the most: from drained shards, then from a node with two, then the fullest."""
    for model, holders in enumerate(board.holders):
        most = demand[model].most
        while len(holders) > most:
            board.drop(model, _most_dispensable(board, model), f"no more than {most} replicas are needed")


def _most_dispensable(board: Board, model: int) -> int:
    nodes = board.same_node(model)
    room = board.room(board.needs[model], 0)
    return min(
        board.holders[model], key=lambda s: (not board.shards[s].drained, -int(nodes[s]), int(room[s]), s)
    )


def fill(board: Board, targets: Targets, budget: Budget, demand: Sequence[Demand]) -> Iterator[Unplaced]:
    """Add missing replicas of what is required, first copies before second ones and big bundles first.

    Yields those that fit nowhere.
    """
    required = [m for m, facts in enumerate(board.models) if not facts.optional]
    open_ = sorted_by_size(board, (m for m in required if len(board.holders[m]) < demand[m].least))
    copies = 0
    while open_:
        copies += 1
        left = []
        for model in open_:
            if len(board.holders[model]) >= copies or _repair(board, targets, budget, demand, model):
                if len(board.holders[model]) < demand[model].least:
                    left.append(model)
            else:
                missing = demand[model].least - len(board.holders[model])
                yield _unplaced(board, model, missing)
        open_ = left


def _repair(board: Board, targets: Targets, budget: Budget, demand: Sequence[Demand], model: int) -> bool:
    shard = targets.best(model, evict=True)
    if shard is None:
        return False
    targets.make_room(model, shard)
    have, least = len(board.holders[model]), demand[model].least
    board.add(model, shard, f"repair: {have} of {least} replicas are there")
    budget.note([model], shard)
    return True


def drain(board: Board, targets: Targets, budget: Budget, demand: Sequence[Demand]) -> Iterator[Unplaced]:
    """Empty the drained shards as far as the budget goes; a replica that nothing else can take stays.

    Yields those that stay for want of room.
    """
    for source in board.drained:
        for model in sorted_by_size(board, board.held[source]):
            others = len(board.holders[model]) - 1
            if others >= demand[model].wanted:
                board.drop(model, source, f"drain of {board.name(source)}: there are {others} other replicas")
                continue
            required = not board.models[model].optional
            target = targets.best(model, leaving=source, evict=required)
            if target is not None:
                if budget.spend([model], target, source):
                    targets.make_room(model, target)
                    board.add(model, target, f"drain of {board.name(source)}", source)
            elif required:
                reason = f"{board.name(source)} is drained but keeps it: {why_not(board, model)}"
                yield Unplaced(model=board.models[model].model, missing=1, reason=reason)
            else:
                board.drop(
                    model, source, f"drain of {board.name(source)}: no room elsewhere for what is optional"
                )


def grow(board: Board, targets: Targets, budget: Budget, demand: Sequence[Demand]) -> Iterator[Unplaced]:
    """Add the replicas that the load asks for, hottest bundles first; yields those that fit nowhere."""
    short = [
        m
        for m, facts in enumerate(board.models)
        if not facts.optional and demand[m].least <= len(board.holders[m]) < demand[m].wanted
    ]
    for model in sorted(short, key=lambda m: (-board.load[m], m)):
        reason = f"growth: {board.load[model]:,.1f} requests/s ask for {demand[model].wanted} replicas"
        yield from _add_up_to(board, targets, budget, model, demand[model].wanted, reason)


def place_optional(
    board: Board, targets: Targets, budget: Budget, demand: Sequence[Demand]
) -> Iterator[Unplaced]:
    """Place what is kept for rollbacks only, where there is room left; yields what finds none."""
    optional = (m for m, facts in enumerate(board.models) if facts.optional)
    for model in sorted_by_size(board, optional):
        reason = "repair: room for a release kept for a rollback"
        yield from _add_up_to(board, targets, budget, model, demand[model].least, reason)


def _add_up_to(
    board: Board, targets: Targets, budget: Budget, model: int, wanted: int, reason: str
) -> Iterator[Unplaced]:
    while len(board.holders[model]) < wanted:
        missing = wanted - len(board.holders[model])
        shard = targets.best(model)
        if shard is None:
            yield _unplaced(board, model, missing)
            return
        if not budget.spend([model], shard):
            budget.deferred += missing - 1
            return
        board.add(model, shard, reason)


def _unplaced(board: Board, model: int, missing: int) -> Unplaced:
    return Unplaced(model=board.models[model].model, missing=missing, reason=why_not(board, model))
