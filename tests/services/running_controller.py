"""A real controller on a real port, over shards in this event loop."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import grpc

from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceStub

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub
from services import chassis, cluster_servicer
from services.audit_log import AuditLog
from services.bundle_catalogue import BundleCatalogue
from services.codec import placement_from_proto, release_to_proto
from services.codec.changes import policy_to_proto
from services.controller_driver import ControllerDriver, DriverConfig
from services.followed_rules import RulesSource
from services.placement_store import FilePlacementStore
from services.shard_host import ShardHost
from shards.changes import ModelPolicy
from shards.cluster_state import ControllerSettings
from shards.placement import Placement
from shards.planner import Limits
from shards.release import Release

SHARDS = ("shard-0", "shard-1")
_LIMITS = Limits()


@dataclass(frozen=True)
class RunningController:
    """The controller and a stub that speaks to it; `address` is its HOST:PORT."""

    driver: ControllerDriver
    stub: "ClusterServiceAsyncStub"
    address: str

    async def deploy(self, release: Release) -> pb.Operation:
        """Deploy a release and return the operation once it has ended."""
        request = pb.DeployReleaseRequest(release=release_to_proto(release))
        return await self._ended((await self.stub.DeployRelease(request, timeout=10)).operation)

    async def hold(self, policy: ModelPolicy) -> pb.Operation:
        """Have a bundle held in this way and return the operation once it has ended."""
        request = pb.HoldModelRequest(policy=policy_to_proto(policy))
        return await self._ended((await self.stub.HoldModel(request, timeout=10)).operation)

    async def _ended(self, operation: pb.Operation) -> pb.Operation:
        async with asyncio.timeout(60):
            while operation.state == pb.OPERATION_STATE_RUNNING:
                await asyncio.sleep(0.02)
                wanted = pb.GetOperationRequest(operation_id=operation.operation_id)
                operation = (await self.stub.GetOperation(wanted, timeout=10)).operation
        return operation

    async def placement_that(self, holds: Callable[[Placement], bool], known: int = 0) -> Placement:
        """Watch until a placement satisfies the condition."""
        request = pb.WatchPlacementRequest(known_generation=known)
        async with asyncio.timeout(30):
            async for response in self.stub.WatchPlacement(request):
                placement = placement_from_proto(response.placement)
                if holds(placement):
                    return placement
        raise AssertionError("the watch ended")


async def eventually(holds: Callable[[], Awaitable[bool]], *, within_s: float = 20.0) -> None:
    """Return as soon as the condition holds; TimeoutError when it never does."""
    async with asyncio.timeout(within_s):
        while not await holds():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


@asynccontextmanager
async def running_controller(
    root: Path,
    host: ShardHost,
    shard_ids: tuple[str, ...] = SHARDS,
    access: RulesSource | None = None,
    audit: AuditLog | None = None,
    *,
    limits: Limits = _LIMITS,
    shard_capacity_bytes: int = 2**30,
) -> AsyncIterator[RunningController]:
    """Run a controller over the bundles in `root`/models, its snapshot in `root`/state."""
    config = DriverConfig(
        shard_ids=shard_ids,
        settings=ControllerSettings(
            limits=limits, shard_capacity_bytes=shard_capacity_bytes, lost_after_ms=200, unload_after_ms=200
        ),
        poll_s=0.05,
    )
    store = FilePlacementStore(root / "state" / "placement.json")
    catalogue = BundleCatalogue(root / "models")
    async with (
        ControllerDriver(config, store, host, catalogue) as driver,
        chassis.serve(
            "127.0.0.1:0",
            register=[cluster_servicer.register(driver)],
            service_names=[cluster_servicer.SERVICE_NAME],
            options=chassis.ChassisOptions(grace_s=0),
            access=access,
            audit=audit,
        ) as server,
        grpc.aio.insecure_channel(server.address, options=chassis.channel_options()) as channel,
    ):
        yield RunningController(driver, ClusterServiceStub(channel), server.address)
