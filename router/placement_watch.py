"""Follows the controller's placement, and goes on with the last known one when the controller is gone."""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc.aio

from protos.headrace.v1 import cluster_service_pb2, cluster_service_pb2_grpc
from router.gate_models import GateModels
from router.placement_cache import read_cache, write_cache
from router.placement_source import PlacementSource
from router.routing_table import NO_PLACEMENT, RoutingTable
from services.backoff import Backoff
from services.bearer import bearer
from services.chassis import channel_options
from services.codec import placement_from_proto
from services.tls import Certificates, Party, open_channel
from shards.errors import InvalidInput, Unavailable
from shards.placement import Placement

log = logging.getLogger(__name__)

_FIRST_ANSWER_S = 1.0
"""How long a starting router waits for the controller before it serves from its cache."""


class PlacementWatch:
    """Holds the newest routing table; `run` keeps it so until cancelled.

    Generations only rise: what is older than the table in use is ignored, so that a controller and a
    `source` may be followed at once. Without either the cache file alone decides. `on_change` is awaited
    with each new table, once it is in use. The controller is shown the `token`. The `gates` that a placement
    names are read before it is used, so that a search finds the gate of its release in its table.
    """

    def __init__(
        self,
        *,
        controller: str,
        cache_path: Path | None,
        on_change: Callable[[RoutingTable], Awaitable[None]],
        rng: random.Random,
        backoff: Backoff | None = None,
        source: PlacementSource | None = None,
        token: str | None = None,
        gates: GateModels | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self._controller = controller
        self._metadata = bearer(token)
        self._certificates = certificates
        self._source = source
        self._cache_path = cache_path
        self._on_change = on_change
        self._gates = gates or GateModels(None)
        self._rng = rng
        self._backoff = backoff or Backoff(base_s=0.05, cap_s=2.0)
        self._heard = asyncio.Event()
        self._changed = asyncio.Event()
        self.table = NO_PLACEMENT

    def newest(self) -> RoutingTable:
        """Return the table in use; raises `Unavailable` when no placement is known yet."""
        if self.table is NO_PLACEMENT:
            raise Unavailable("no placement is known yet")
        return self.table

    async def after(self, generation: int) -> RoutingTable:
        """Return a table that is newer than the generation, as soon as there is one."""
        while self.table.generation <= generation:
            await self._changed.wait()
        return self.table

    async def run(self) -> None:
        """Follow controller and source for ever; when neither answers at first, start from the cache."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._start_from_cache())
            if self._controller:
                group.create_task(self._follow())
            if self._source:
                group.create_task(self._follow_source(self._source))

    async def _start_from_cache(self) -> None:
        try:
            async with asyncio.timeout(_FIRST_ANSWER_S if self._controller or self._source else 0):
                await self._heard.wait()
        except TimeoutError:
            pass
        if self.table is NO_PLACEMENT and self._cache_path:
            cached = await read_cache(self._cache_path)
            if cached is not None and self.table is NO_PLACEMENT:
                log.info("serving generation %d from %s", cached.generation, self._cache_path)
                await self._offer(cached)

    async def _follow(self) -> None:
        attempt = 0
        while True:
            # A new channel each time shows the certificate as it is by then.
            async with self._channel() as channel:
                taken = await self._listen(cluster_service_pb2_grpc.ClusterServiceStub(channel))
            self._heard.set()
            attempt = 0 if taken else attempt + 1
            await asyncio.sleep(self._backoff.delay_s(attempt, self._rng))

    def _channel(self) -> grpc.aio.Channel:
        return open_channel(
            self._controller, self._certificates, Party.CONTROLLER.value, options=channel_options()
        )

    async def _follow_source(self, source: PlacementSource) -> None:
        async for placement in source.placements(self.table.generation):
            await self._take(placement)

    async def _listen(self, stub: "cluster_service_pb2_grpc.ClusterServiceAsyncStub") -> int:
        """Take placements until the stream ends; returns how many.

        A controller that lost its history sends what is older than ours. The next stream then tells it
        our generation, from which it goes on counting.
        """
        taken = 0
        stream = stub.WatchPlacement(
            cluster_service_pb2.WatchPlacementRequest(known_generation=self.table.generation),
            metadata=self._metadata,
        )
        try:
            async for response in stream:
                if await self._hear(response.placement):
                    taken += 1
                elif response.placement.generation < self.table.generation:
                    break
        except grpc.aio.AioRpcError as error:
            log.info("controller %s does not answer: %s", self._controller, error.details())
        finally:
            stream.cancel()
        return taken

    async def _hear(self, message: cluster_service_pb2.Placement) -> bool:
        """Use and remember what the controller says; returns False for what is no news or makes no sense."""
        try:
            placement = placement_from_proto(message)
        except InvalidInput as error:
            log.error("generation %d is ignored: %s", message.generation, error)
            return False
        return await self._take(placement)

    async def _take(self, placement: Placement) -> bool:
        """Use and remember what was heard; returns False for what is no news."""
        taken = await self._offer(placement)
        self._heard.set()
        if taken and self._cache_path:
            await write_cache(self._cache_path, placement)
        return taken

    async def _offer(self, placement: Placement) -> bool:
        """Use the placement, and the gates that it names, unless it is no newer than the one in use."""
        if not self._is_news(placement):
            return False
        gates = await self._gates.read(placement)
        # A newer one may have been taken meanwhile.
        if not self._is_news(placement):
            return False
        self.table = RoutingTable(placement, gates)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        await self._on_change(self.table)
        return True

    def _is_news(self, placement: Placement) -> bool:
        return self.table is NO_PLACEMENT or placement.generation > self.table.generation
