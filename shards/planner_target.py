"""The shard for one more replica: on a new node, away from its group, beside its release, least pressed."""

from collections.abc import Iterable, Sequence

import numpy as np

from shards.planner_board import DIMENSIONS, GPU, HOST, LOAD, Board, Floats, Ints, Mask, Need

_NODE, _EVICT, _GROUP = 10**14, 10**13, 10**6
"""One of these outweighs all that follows: replicas on the node, optional bundles let go, partitions of the
same catalogue beside it. Bundles of the same release count one each, in favour."""
_UNFIT = 1 << 62


class Targets:
    """Chooses shards on a board; what they hold is compared in shares of the mean."""

    def __init__(self, board: Board, scale: Floats) -> None:
        self.board = board
        self.scale = scale
        self._square = scale**2
        self._dimensions = [d for d in (HOST, GPU, LOAD) if scale[d].any()]
        self._evicts = any(m.optional for m in board.models)

    def best(
        self, model: int, *, leaving: int | None = None, evict: bool = False, among: Mask | None = None
    ) -> int | None:
        """Return the best shard that may be given the bundle; None if there is none.

        With `evict`, a shard also counts that must let go optional bundles first: see `make_room`.
        """
        board = self.board
        need = board.needs[model]
        evict = evict and self._evicts
        fits = board.fits(need, without_optional=evict)
        if among is not None:
            fits &= among
        penalty = self._penalty(model, leaving)
        if evict:
            penalty[~board.fits(need)] += _EVICT
        for holder in board.holders[model]:
            fits[holder] = False
        return self.least(need, fits, penalty)

    def _penalty(self, model: int, leaving: int | None) -> Ints:
        board = self.board
        penalty = board.same_node(model, leaving)
        penalty *= _NODE
        if board.models[model].group:
            penalty += board.same_group(model, leaving) * _GROUP
        for shard, mates in board.mates(model):
            penalty[shard] -= mates
        return penalty

    def least(self, need: Need, fits: Mask, penalty: Ints) -> int | None:
        """Return the shard with the least penalty and, of several, that which raises the pressure least."""
        np.putmask(penalty, ~fits, _UNFIT)
        least = np.minimum.reduce(penalty, initial=_UNFIT)
        if least == _UNFIT:
            return None
        choices = (penalty == least).nonzero()[0]
        if len(choices) == 1:
            return int(choices[0])
        return int(choices[np.argmin(self._cost(need, choices))])

    def _cost(self, need: Need, choices: Ints) -> Floats:
        """Return by how much the sum of squared pressures would rise: what is scarce counts most."""
        cost = np.zeros(len(choices))
        for d in self._dimensions:
            amount = need.weight[d] or (d == HOST)
            if amount:
                cost += (2 * self.board.weight[d][choices] + amount) * self._square[d][choices] * amount
        return cost

    def pressure(self) -> Floats:
        """Return the memory and load of every shard in shares of the mean, per dimension."""
        return self.board.weight * self.scale

    def pressure_with(self, need: Need) -> Floats:
        """Return the greatest share of each shard if it held this as well."""
        more = np.array(need.weight, np.int64)[:, None]
        greatest: Floats = ((self.board.weight + more) * self.scale).max(axis=0)
        return greatest

    def make_room(self, model: int, shard: int) -> None:
        """Let go of what is optional on the shard until the bundle fits: first what is held elsewhere."""
        board = self.board
        while self._evicts and not board.fits(board.needs[model])[shard]:
            optional = [m for m in board.held[shard] if board.models[m].optional]
            last = min(optional, key=lambda m: (-len(board.holders[m]), -board.needs[m].weight[HOST], m))
            board.drop(last, shard, f"optional: {board.models[model].model} needs its room")


def why_not(board: Board, model: int) -> str:
    """Return why no shard can be given the bundle, with figures."""
    free = board.gains.copy()
    free[list(board.holders[model])] = False
    if not free.any():
        answering = [s for s in board.shards if s.lost_since_ms is None]
        drained = sum(s.drained for s in answering)
        told = f"{len(answering)}, {drained} of them drained" if drained else f"{len(answering)}"
        return f"of the shards that answer ({told}) none is left for it"
    need = board.needs[model]
    for d in (HOST, GPU):
        size = need.weight[d]
        room = int((board.room(need, d, without_optional=not board.models[model].optional)[free]).max())
        # What is on demand shares its room: all of it is there for one more.
        room += need.shared[d]
        if size > room:
            kind = "bytes" if d == HOST else "bytes of GPU memory"
            return f"it needs {size:,} {kind} and the most room on a shard is {max(0, room):,}"
    host, gpu, _ = need.weight
    return f"no shard has room for its {host:,} bytes and {gpu:,} bytes of GPU memory at once"


def total_weight(board: Board, replicas: Sequence[int]) -> list[int]:
    """Return memory, GPU memory and load of so many replicas of each bundle."""
    pairs = list(zip(board.needs, replicas, strict=True))
    return [sum(need.weight[d] * count for need, count in pairs) for d in range(len(DIMENSIONS))]


def sorted_by_size(board: Board, models: Iterable[int]) -> list[int]:
    """Return the bundles, the biggest first; those on demand last, as they need only what is left."""

    def rank(model: int) -> tuple[bool, int, int]:
        host, gpu, _ = board.needs[model].weight
        return board.models[model].on_demand, -host - gpu, model

    return sorted(models, key=rank)
