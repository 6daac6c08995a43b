"""A shard as its controller and its routers call it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from deploy.caller_channel import caller_channel
from protos.headrace.v1 import shard_service_pb2 as pb
from protos.headrace.v1.cascade_service_pb2_grpc import CascadeServiceStub
from protos.headrace.v1.pre_ranking_service_pb2_grpc import PreRankingServiceStub
from protos.headrace.v1.ranking_service_pb2_grpc import RankingServiceStub
from protos.headrace.v1.retrieval_service_pb2_grpc import RetrievalServiceStub
from protos.headrace.v1.shard_service_pb2_grpc import ShardServiceStub
from router.credentials import NOTHING, Credentials
from services import codec, status
from services.tls import Party
from shards.cascade import CascadeCall
from shards.errors import Unavailable
from shards.holding import LOADED, Terms
from shards.release import ModelVersion, Release
from shards.replica import Replica, ReplicaState
from shards.search_context import SearchContext

NOW_MS = 1_700_000_000_000


@dataclass(frozen=True, slots=True)
class Models:
    """Bundles below `root` and the release that pins them."""

    root: Path
    release: Release

    def path(self, model: ModelVersion) -> Path:
        return self.root / model.model / model.version

    def retrieval(self, **changes: Any) -> codec.Retrieval:
        """Return a retrieval by the release's first channel."""
        fields: dict[str, Any] = {
            "model": self.release.channels[0].model,
            "context": SearchContext(query="mug", now_ms=NOW_MS),
            "k": 5,
        }
        return codec.Retrieval(**fields | changes)


class ShardClient:
    """Calls one shard; what it answers with an error is raised as ours."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._shard = ShardServiceStub(channel)
        self._retrieval = RetrievalServiceStub(channel)
        self._pre_ranking = PreRankingServiceStub(channel)
        self._ranking = RankingServiceStub(channel)
        self._cascade = CascadeServiceStub(channel)

    async def load(self, model: ModelVersion, path: Path, terms: Terms = LOADED) -> Replica:
        request = pb.LoadModelRequest(
            model=codec.model_version_to_proto(model),
            path=str(path),
            on_demand=terms.on_demand,
            pinned=terms.pinned,
            memory_bytes=terms.memory_bytes,
        )
        return codec.replica_from_proto((await _ours(self._shard.LoadModel(request, timeout=120))).replica)

    async def unload(self, model: ModelVersion, owner: str = "", generation: int = 0) -> None:
        request = pb.UnloadModelRequest(
            model=codec.model_version_to_proto(model), owner=owner, generation=generation
        )
        await _ours(self._shard.UnloadModel(request, timeout=10))

    async def drain(self) -> int:
        response = await _ours(self._shard.Drain(pb.DrainRequest(), timeout=10))
        return int(response.abandoned)

    async def shard(self) -> pb.GetShardResponse:
        response: pb.GetShardResponse = await _ours(self._shard.GetShard(pb.GetShardRequest(), timeout=10))
        return response

    async def replicas(self) -> dict[ModelVersion, Replica]:
        found = [codec.replica_from_proto(replica) for replica in (await self.shard()).replicas]
        return {replica.model: replica for replica in found}

    async def wait_for(self, states: dict[ModelVersion, ReplicaState], timeout_s: float = 60) -> None:
        """Return as soon as the shard answers and holds exactly these."""
        give_up = time.monotonic() + timeout_s
        found: object = None
        while time.monotonic() < give_up:
            try:
                found = {model: replica.state for model, replica in (await self.replicas()).items()}
                if found == states:
                    return
            except Unavailable as error:
                found = error
            await asyncio.sleep(0.02)
        raise AssertionError(f"{states} wanted, {found} found")

    async def retrieve(self, call: codec.Retrieval, timeout_s: float | None = 10) -> codec.StageAnswer:
        request = codec.retrieve_to_proto(call)
        return codec.answer_from_proto(await _ours(self._retrieval.Retrieve(request, timeout=timeout_s)))

    async def pre_rank(self, call: codec.Scoring) -> codec.StageAnswer:
        request = codec.pre_rank_to_proto(call)
        return codec.answer_from_proto(await _ours(self._pre_ranking.PreRank(request, timeout=10)))

    async def rank(self, call: codec.Scoring) -> codec.StageAnswer:
        request = codec.rank_to_proto(call)
        return codec.answer_from_proto(await _ours(self._ranking.Rank(request, timeout=10)))

    async def run(self, call: CascadeCall, timeout_s: float = 10) -> codec.CascadeAnswer:
        request = codec.cascade_to_proto(call)
        return codec.cascade_answer_from_proto(await _ours(self._cascade.Run(request, timeout=timeout_s)))


async def _ours(call: Any) -> Any:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise status.from_rpc_error(error) from error


@asynccontextmanager
async def connect(address: str, credentials: Credentials = NOTHING) -> AsyncIterator[ShardClient]:
    """Give a client of the shard at this address."""
    async with caller_channel(address, credentials, Party.SHARD) as channel:
        yield ShardClient(channel)
