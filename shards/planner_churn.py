"""What a round may still move: in all, for every shard and for every node."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from shards.planner_board import HOST, Board
from shards.planner_facts import Churn, Limits


@dataclass(slots=True)
class _Account:
    churn: Churn
    moves: int = 0
    size_bytes: int = 0

    def allows(self, moves: int, size_bytes: int) -> bool:
        """Return whether this much may still move."""
        churn = self.churn
        return (churn.moves is None or self.moves + moves <= churn.moves) and (
            churn.size_bytes is None or self.size_bytes + size_bytes <= churn.size_bytes
        )


class Budget:
    """What the moves of a round cost so far; repairs are noted even where they take more than there is."""

    def __init__(self, board: Board, limits: Limits) -> None:
        self._board = board
        self._round = _Account(limits.churn)
        self._shards = [_Account(limits.churn_per_shard) for _ in board.shards]
        self._nodes = [_Account(limits.churn_per_node) for _ in board.on_node]
        limited = (limits.churn, limits.churn_per_shard, limits.churn_per_node)
        self._unlimited = all(churn == Churn() for churn in limited)
        self.deferred = 0

    def spend(self, models: Iterable[int], target: int, source: int | None = None) -> bool:
        """Note that replicas move together, if they may; if not, count them as deferred."""
        if self._unlimited:
            return True
        moved = list(models)
        size_bytes = self._bytes(moved)
        if all(account.allows(len(moved), size_bytes) for account in self._accounts(target, source)):
            self.note(moved, target, source)
            return True
        self.deferred += len(moved)
        return False

    def note(self, models: Iterable[int], target: int, source: int | None = None) -> None:
        """Note that replicas move, whether they may or not."""
        if self._unlimited:
            return
        moved = list(models)
        size_bytes = self._bytes(moved)
        for account in self._accounts(target, source):
            account.moves += len(moved)
            account.size_bytes += size_bytes

    def _bytes(self, models: Iterable[int]) -> int:
        return sum(self._board.needs[m].weight[HOST] for m in models)

    def _accounts(self, target: int, source: int | None) -> Iterator[_Account]:
        ends = [target] if source is None else [target, source]
        yield self._round
        yield from (self._shards[shard] for shard in ends)
        yield from (self._nodes[node] for node in sorted({int(self._board.node_of[shard]) for shard in ends}))
