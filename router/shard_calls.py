"""Calls of a shard by model, in bytes: picks a replica, and tries once more where that may help."""

from collections.abc import Callable, Sequence

import grpc
import grpc.aio

from router.budget import Deadline
from router.replicas import ReplicaHealth
from router.routing_table import Endpoint, RoutingTable
from router.shard_channels import ShardChannels
from services.status import from_rpc_error
from shards.errors import HeadraceError, NotFound, NotOwner, Unavailable
from shards.release import ModelVersion


class ShardCalls:
    """Sends stage calls, all of them idempotent reads, to the shards that hold their model.

    A call is tried on at most two replicas, within its time. `newest` returns the newest routing
    table, for the call that finds that its own is out of date.
    """

    def __init__(
        self, *, channels: ShardChannels, health: ReplicaHealth, newest: Callable[[], RoutingTable]
    ) -> None:
        self._channels = channels
        self._health = health
        self._newest = newest

    async def call(
        self, path: str, payload: bytes, *, model: ModelVersion, table: RoutingTable, deadline: Deadline
    ) -> bytes:
        """Return the response of a replica of the model.

        Raises `NotFound` for a model that the table does not know, `Unavailable` when no shard holds it,
        and `grpc.aio.AioRpcError` as the last shard asked raised it.
        """
        replicas = table.replicas(model)
        if not replicas:
            raise Unavailable(f"no shard holds {model}")
        first = self._health.choose(replicas, deadline.clock())
        try:
            return await self._ask(first, path, payload, deadline)
        except grpc.aio.AioRpcError as error:
            others = second_choices(from_rpc_error(error), first, model, table, self._newest())
            if not others or deadline.remaining_s() <= 0:
                raise
        second = self._health.choose(others, deadline.clock())
        return await self._ask(second, path, payload, deadline)

    async def _ask(self, replica: Endpoint, path: str, payload: bytes, deadline: Deadline) -> bytes:
        method = self._channels.method(replica.address, path)
        try:
            with self._health.asking(replica):
                response = await method(payload, timeout=max(0.0, deadline.remaining_s()))
        except grpc.aio.AioRpcError as error:
            if error.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
                self._health.failed(replica, deadline.clock())
            raise
        self._health.answered(replica)
        return response


def second_choices(
    error: HeadraceError,
    tried: Endpoint,
    model: ModelVersion,
    table: RoutingTable,
    newest: RoutingTable,
) -> Sequence[Endpoint]:
    """Return the replicas that may answer after `tried` failed; none when no other can do better.

    A shard that is no longer the owner names the new one; else the newest table may know. A sole replica
    that could not be reached is asked again, because its connection may only have been an old one.
    """
    try:
        replicas = newest.replicas(model)
    except NotFound:
        replicas = table.replicas(model)
    others = tuple(replica for replica in replicas if replica != tried)
    match error:
        case NotOwner():
            owner = newest.endpoints.get(error.owner)
            return (owner,) if owner is not None and owner != tried else others
        case Unavailable():
            return others or (tried,)
        case _:
            return ()
