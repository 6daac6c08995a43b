"""Plans: the moves with their reasons, and what they do to every shard."""

from collections.abc import Iterable

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from deploy.views.table import bundle, new_table, seconds_of, size, span
from protos.headrace.v1 import cluster_service_pb2 as pb


def plan_views(plan: pb.Plan) -> list[RenderableType]:
    """Return the moves, the shards before and after, and in a line what it costs."""
    views: list[RenderableType] = [moves_table(plan.moves)] if plan.moves else []
    views += [_shards_table(plan)] if plan.shards else []
    views.append(Text(summary(plan)))
    views += [Text(f"Cannot be placed: {reason}", "red") for reason in plan.unplaced]
    return views


def summary(plan: pb.Plan) -> str:
    """Return in a line how much moves and how long that takes."""
    waiting = f" {plan.deferred} more wait for a later round." if plan.deferred else ""
    if not plan.moves:
        return f"Nothing to move at generation {plan.generation}.{waiting}"
    moved = sum(move.memory_bytes for move in plan.moves if move.to_shard_id)
    moves = f"{len(plan.moves)} move{'s' if len(plan.moves) != 1 else ''}"
    duration = span(seconds_of(plan.expected_duration))
    return f"{moves}, {size(moved)} to load, about {duration}, on generation {plan.generation}.{waiting}"


def moves_table(moves: Iterable[pb.Move]) -> Table:
    """Return a table of moves, each with its reason."""
    headings = ("model", "from", "to", "memory", "why")
    table = new_table("Moves", *headings, numeric=("memory",), long=("model", "why"))
    for move in moves:
        table.add_row(
            bundle(move.model),
            move.from_shard_id or "-",
            move.to_shard_id or "-",
            size(move.memory_bytes),
            move.reason,
        )
    return table


def _shards_table(plan: pb.Plan) -> Table:
    headings = ("shard", "memory", "after", "of", "full", "load/s", "after ")
    table = new_table("Shards", *headings, numeric=headings[1:])
    for shard in plan.shards:
        full = shard.after_bytes / shard.capacity_bytes if shard.capacity_bytes else 0.0
        table.add_row(
            shard.shard_id,
            size(shard.before_bytes),
            size(shard.after_bytes),
            size(shard.capacity_bytes),
            f"{full:.0%}",
            f"{shard.load_before:,.1f}",
            f"{shard.load_after:,.1f}",
        )
    return table
