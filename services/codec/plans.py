"""Plans as they are forecast: moves, and what they do to every shard."""

import uuid
from collections.abc import Iterable

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec.changes import move_to_proto, read_move
from services.codec.moments import duration_to_proto
from services.codec.violations import collecting
from shards.forecast import PlanForecast, ShardForecast
from shards.planner import PlannedMove


def moves_from_proto(messages: Iterable[pb.Move]) -> tuple[PlannedMove, ...]:
    """Return the moves; raises `InvalidInput` with every field at fault, below "moves"."""
    with collecting("moves") as field:
        return tuple(read_move(message, field.element(i)) for i, message in enumerate(messages))


def forecast_to_proto(forecast: PlanForecast) -> pb.Plan:
    """Return the message of a plan that is not applied."""
    return pb.Plan(
        plan_id=uuid.uuid4().hex,
        generation=forecast.generation,
        moves=[move_to_proto(move) for move in forecast.plan.moves],
        unplaced=[f"{unplaced.model}: {unplaced.reason}" for unplaced in forecast.plan.unplaced],
        expected_duration=duration_to_proto(forecast.duration_s),
        shards=[_shard_to_proto(shard) for shard in forecast.shards],
        deferred=forecast.plan.deferred,
    )


def _shard_to_proto(shard: ShardForecast) -> pb.ShardForecast:
    return pb.ShardForecast(
        shard_id=shard.shard_id,
        capacity_bytes=shard.capacity_bytes,
        before_bytes=shard.before_bytes,
        after_bytes=shard.after_bytes,
        load_before=shard.load_before,
        load_after=shard.load_after,
    )
