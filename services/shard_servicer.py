"""ShardService: what the controller asks of a shard."""

import asyncio
import os
import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import grpc

from protos.headrace.v1 import shard_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2_grpc
from services import codec
from services.chassis import CONTROL_DEADLINE_S, remaining_s
from services.codec.stages import read_model_version
from services.codec.violations import collecting
from services.holdings import Holdings
from services.on_demand import OnDemandLoads
from services.shard_config import ShardConfig
from services.stage_runner import StageRunner
from services.worker_pool import WorkerPool
from shards.holding import Terms
from shards.leak_guard import LeakGuard
from shards.process_memory import anonymous_bytes, resident_bytes

SERVICE_NAME = "headrace.v1.ShardService"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """The parts of one shard; `incarnation` is new with every life of its process."""

    config: ShardConfig
    incarnation: str
    holdings: Holdings
    pool: WorkerPool
    runner: StageRunner
    on_demand: OnDemandLoads
    leak_guard: LeakGuard


class ShardServicer(shard_service_pb2_grpc.ShardServiceServicer):
    """Loads, unloads, drains and tells; `loader` runs what blocks, beside the workers that serve."""

    def __init__(self, shard: Shard, loader: Executor) -> None:
        self._shard = shard
        self._loader = loader

    async def LoadModel(  # noqa: N802
        self, request: pb.LoadModelRequest, _: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.LoadModelResponse:
        """Load a bundle, or hold it on demand; one that serves already is left as it is."""
        with collecting() as at:
            model = read_model_version(request.model, at.child("model"))
            at.child("path").check_set(request.path)
            at.child("memory_bytes").check(request.memory_bytes >= 0, "must not be negative")
        terms = Terms(on_demand=request.on_demand, pinned=request.pinned, memory_bytes=request.memory_bytes)
        replica = await self._off_loop(
            lambda: self._shard.holdings.load(model, Path(request.path).absolute(), terms)
        )
        return pb.LoadModelResponse(replica=codec.replica_to_proto(replica))

    async def UnloadModel(  # noqa: N802
        self, request: pb.UnloadModelRequest, _: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.UnloadModelResponse:
        """Let a bundle go; one that is not held is gone already."""
        with collecting() as at:
            model = read_model_version(request.model, at.child("model"))
        await self._off_loop(
            lambda: self._shard.holdings.unload(model, owner=request.owner, generation=request.generation)
        )
        return pb.UnloadModelResponse()

    async def Drain(  # noqa: N802
        self, request: pb.DrainRequest, context: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.DrainResponse:
        """Refuse new work and wait for the work in flight."""
        self._shard.runner.draining = True
        timeout_s = remaining_s(context, default_s=CONTROL_DEADLINE_S)
        if request.HasField("timeout"):
            timeout_s = min(timeout_s, codec.duration_from_proto(request.timeout))
        loads_until = time.monotonic() + timeout_s
        await self._shard.on_demand.settled(timeout_s)
        timeout_s = loads_until - time.monotonic()
        return pb.DrainResponse(abandoned=await self._shard.pool.wait_idle(timeout_s))

    async def GetShard(  # noqa: N802
        self, _: pb.GetShardRequest, __: "grpc.aio.ServicerContext[Any, Any]"
    ) -> pb.GetShardResponse:
        """Tell what the shard holds and how it is."""
        shard, config = self._shard, self._shard.config
        return pb.GetShardResponse(
            shard_id=config.shard_id,
            incarnation=shard.incarnation,
            replicas=[codec.replica_to_proto(shard.runner.watch.told(r)) for r in shard.holdings.replicas()],
            memory_bytes=resident_bytes(),
            in_flight=shard.pool.in_flight,
            pid=os.getpid(),
            device=config.device,
            draining=shard.runner.draining,
            node=config.node,
            capacity_bytes=config.memory_bytes,
            gpu_capacity_bytes=config.gpu_memory_bytes,
            recycle_reason=shard.leak_guard.look(
                time.monotonic(),
                anonymous_bytes(),
                shard.holdings.memory().host_bytes,
                loading=shard.holdings.loading,
            ),
        )

    async def _off_loop(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._loader, work)


def register(shard: Shard, loader: Executor) -> Callable[[grpc.aio.Server], None]:
    """Return what adds the service to a server."""

    def add(server: grpc.aio.Server) -> None:
        shard_service_pb2_grpc.add_ShardServiceServicer_to_server(ShardServicer(shard, loader), server)

    return add
