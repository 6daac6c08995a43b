"""What commands ask of a controller, with its errors as ours."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import grpc.aio

from deploy.caller_channel import caller_channel
from deploy.settings import caller_credentials
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceStub
from router.credentials import Credentials
from services.status import from_rpc_error
from services.tls import Party

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

T = TypeVar("T")

TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """A cluster at one moment."""

    shards: list[pb.Shard]
    models: list[pb.Model]
    releases: pb.ListReleasesResponse
    operations: list[pb.Operation]
    generation: int
    frozen: bool


def ask(address: str, question: "Callable[[ClusterServiceAsyncStub], Awaitable[T]]") -> T:
    """Return the controller's answer to whoever the environment's token and certificate stand for.

    Raises the error that it answered with, or `Unavailable`.
    """
    return asyncio.run(asked(address, caller_credentials(), question))


async def asked(
    address: str, credentials: Credentials, question: "Callable[[ClusterServiceAsyncStub], Awaitable[T]]"
) -> T:
    """Return the controller's answer to whoever shows these credentials; raises as `ask` does."""
    async with caller_channel(address, credentials, Party.CONTROLLER) as channel:
        try:
            return await question(ClusterServiceStub(channel))
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error) from error


async def overview(stub: "ClusterServiceAsyncStub") -> Overview:
    """Return all there is to show."""
    shards, models, releases, operations, placement = await asyncio.gather(
        stub.ListShards(pb.ListShardsRequest(), timeout=TIMEOUT_S),
        stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S),
        stub.ListReleases(pb.ListReleasesRequest(), timeout=TIMEOUT_S),
        stub.ListOperations(pb.ListOperationsRequest(), timeout=TIMEOUT_S),
        stub.GetPlacement(pb.GetPlacementRequest(), timeout=TIMEOUT_S),
    )
    return Overview(
        shards=list(shards.shards),
        models=list(models.models),
        releases=releases,
        operations=list(operations.operations),
        generation=shards.generation,
        frozen=placement.placement.intent.frozen,
    )
