"""The controller's line to one shard: it looks how the shard is, and has it load and unload."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from protos.headrace.v1 import shard_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2_grpc
from services.chassis import channel_options
from services.codec import duration_to_proto, model_version_to_proto, replica_from_proto
from services.dialling import PLAINLY, Dialling
from services.shard_host import ShardHost
from services.status import from_rpc_error
from shards.cluster_events import (
    LoadDone,
    LoadFailed,
    LoadModel,
    ShardSeen,
    ShardSilent,
    UnloadDone,
    UnloadModel,
)
from shards.errors import DeadlineExceeded, HeadraceError, Unavailable

LOOK_TIMEOUT_S = 1.0
CHANGE_TIMEOUT_S = 300.0


class ShardLink:
    """One shard, wherever it serves now; `close` it at the end.

    `look` first tries the address where the shard was last, and asks the host for another one when
    nothing of the shard's id answers there.
    """

    def __init__(self, shard_id: str, address: str, host: ShardHost, shown: Dialling = PLAINLY) -> None:
        self._shard_id = shard_id
        self._host = host
        self._shown = shown
        self._address = address
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._changing = asyncio.Lock()
        self._changes = 0

    async def close(self) -> None:
        """Close the line; it may be used again."""
        while self._channels:
            _, channel = self._channels.popitem()
            await channel.close()

    async def look(self) -> ShardSeen | ShardSilent:
        """Return how the shard is; never fails."""
        while True:
            changes = self._changes
            seen = await self._look()
            # What the shard said before a change was done must not count after it.
            if changes == self._changes:
                return seen

    async def load(self, action: LoadModel, path: Path) -> LoadDone | LoadFailed:
        """Have the shard load the bundle in this folder; returns when it serves or will not."""
        request = pb.LoadModelRequest(
            model=model_version_to_proto(action.model),
            path=str(path),
            on_demand=action.on_demand,
            pinned=action.pinned,
            memory_bytes=action.memory_bytes,
        )
        try:
            async with self._change():
                response = await self._stub().LoadModel(
                    request, timeout=CHANGE_TIMEOUT_S, metadata=self._shown.metadata
                )
            return LoadDone(shard_id=self._shard_id, replica=replica_from_proto(response.replica))
        except (grpc.aio.AioRpcError, HeadraceError) as error:
            known = from_rpc_error(error) if isinstance(error, grpc.aio.AioRpcError) else error
            return LoadFailed(
                shard_id=self._shard_id,
                model=action.model,
                error=str(known),
                refused=not isinstance(known, Unavailable | DeadlineExceeded),
            )

    async def unload(self, action: UnloadModel) -> UnloadDone:
        """Have the shard let the bundle go; one that cannot be asked is looked at again later."""
        request = pb.UnloadModelRequest(
            model=model_version_to_proto(action.model), owner=action.owner, generation=action.generation
        )
        with contextlib.suppress(grpc.aio.AioRpcError, Unavailable):
            async with self._change():
                await self._stub().UnloadModel(
                    request, timeout=CHANGE_TIMEOUT_S, metadata=self._shown.metadata
                )
        return UnloadDone(shard_id=self._shard_id, model=action.model)

    async def drain(self, timeout_s: float) -> None:
        """Have the shard finish what is in flight; one that cannot be asked has nothing in flight."""
        request = pb.DrainRequest(timeout=duration_to_proto(timeout_s))
        with contextlib.suppress(grpc.aio.AioRpcError, Unavailable):
            await self._stub().Drain(
                request, timeout=timeout_s + LOOK_TIMEOUT_S, metadata=self._shown.metadata
            )

    async def _look(self) -> ShardSeen | ShardSilent:
        try:
            self._address = self._address or await self._host.address(self._shard_id)
            asked = self._stub().GetShard
            response = await asked(
                pb.GetShardRequest(), timeout=LOOK_TIMEOUT_S, metadata=self._shown.metadata
            )
        except grpc.aio.AioRpcError as error:
            refused = error.code() is not grpc.StatusCode.DEADLINE_EXCEEDED
            if refused:
                await self._forget_address()
            return ShardSilent(shard_id=self._shard_id, refused=refused)
        except Unavailable:
            return ShardSilent(shard_id=self._shard_id, refused=True)
        if response.shard_id != self._shard_id:
            # Another process took the port while the shard was away.
            await self._forget_address()
            return ShardSilent(shard_id=self._shard_id, refused=True)
        return self._seen(response)

    def _seen(self, response: pb.GetShardResponse) -> ShardSeen:
        replicas = [replica_from_proto(replica) for replica in response.replicas]
        return ShardSeen(
            shard_id=self._shard_id,
            address=self._address,
            incarnation=response.incarnation,
            replicas={replica.model: replica for replica in replicas},
            memory_bytes=response.memory_bytes,
            pid=response.pid,
            node_id=response.node,
            capacity_bytes=response.capacity_bytes,
            gpu_capacity_bytes=response.gpu_capacity_bytes,
            recycle_reason=response.recycle_reason,
        )

    @contextlib.asynccontextmanager
    async def _change(self) -> AsyncIterator[None]:
        """Make one change at a time, in the order in which they were asked for."""
        async with self._changing:
            try:
                yield
            finally:
                self._changes += 1

    def _stub(self) -> "shard_service_pb2_grpc.ShardServiceAsyncStub":
        if not self._address:
            raise Unavailable(f"{self._shard_id} does not run")
        if self._address not in self._channels:
            self._channels[self._address] = self._shown.channel(self._address, channel_options())
        return shard_service_pb2_grpc.ShardServiceStub(self._channels[self._address])

    async def _forget_address(self) -> None:
        self._address = ""
        # Closing a channel cancels whoever waits for an answer on it.
        if not self._changing.locked():
            await self.close()
