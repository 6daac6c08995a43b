"""A real controller with rules: every kind of caller, over real channels."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from protos.headrace.v1 import cluster_service_pb2 as pb
from tests.services.callers import access, showing
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import RunningController, running_controller

ANSWERED, UNKNOWN, DENIED = "answered", "UNAUTHENTICATED", "PERMISSION_DENIED"


def check(root: Path, main: Callable[[RunningController], Awaitable[None]]) -> None:
    """Run `main` with a controller that has rules."""

    async def run() -> None:
        (root / "models").mkdir()
        async with (
            in_process_shards(root / "state") as shards,
            running_controller(root, shards, access=access) as controller,
        ):
            await main(controller)

    asyncio.run(run())


async def outcome(call: Awaitable[Any]) -> str:
    """Return what became of a call: that it was answered, or its code, which its details must confirm."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return reason_of(error)
    return ANSWERED


def reason_of(error: grpc.aio.AioRpcError) -> str:
    status, info = rpc_status.from_call(error), ErrorInfo()
    assert status is not None
    assert status.details[0].Unpack(info)
    assert (info.reason, info.domain) == (error.code().name, "headrace.dev")
    assert info.metadata["request_id"]
    assert "-token" not in str(status)
    return error.code().name


async def first(stream: Any) -> None:
    async for _ in stream:
        stream.cancel()
        return


@pytest.mark.parametrize(
    ("token", "listing", "placement"),
    [
        (None, UNKNOWN, UNKNOWN),
        ("wrong-token", UNKNOWN, UNKNOWN),
        ("search-token", DENIED, DENIED),
        ("internal-token", DENIED, ANSWERED),
        ("operator-token", ANSWERED, ANSWERED),
    ],
)
def test_the_controller_answers_operators_and_tells_routers_the_placement(
    tmp_path: Path, token: str | None, listing: str, placement: str
) -> None:
    async def main(controller: RunningController) -> None:
        stub, metadata = controller.stub, showing(token)
        watched = pb.WatchPlacementRequest()
        listed = stub.ListShards(pb.ListShardsRequest(), timeout=10, metadata=metadata)
        read = stub.GetPlacement(pb.GetPlacementRequest(), timeout=10, metadata=metadata)
        assert await outcome(listed) == listing
        assert await outcome(read) == placement
        assert await outcome(first(stub.WatchPlacement(watched, timeout=10, metadata=metadata))) == placement

    check(tmp_path, main)


def test_a_refused_request_is_not_even_parsed(tmp_path: Path) -> None:
    async def main(controller: RunningController) -> None:
        async with grpc.aio.insecure_channel(controller.address) as channel:
            drain: Callable[..., Any] = channel.unary_unary("/headrace.v1.ClusterService/DrainShard")
            assert await outcome(drain(b"\x0a\xff", timeout=10)) == UNKNOWN
            unknown: Callable[..., Any] = channel.unary_unary("/headrace.v1.ClusterService/Guess")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await unknown(b"", timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    check(tmp_path, main)


def test_two_tokens_are_none(tmp_path: Path) -> None:
    async def main(controller: RunningController) -> None:
        metadata = showing("operator-token") + showing("search-token")
        call = controller.stub.ListShards(pb.ListShardsRequest(), timeout=10, metadata=metadata)
        assert await outcome(call) == UNKNOWN

    check(tmp_path, main)


def test_health_is_everybodys_and_reflection_and_channelz_are_operators(tmp_path: Path) -> None:
    async def main(controller: RunningController) -> None:
        async with grpc.aio.insecure_channel(controller.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            for token, outcome_of in (
                (None, UNKNOWN),
                ("search-token", DENIED),
                ("operator-token", ANSWERED),
            ):
                call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                    iter([reflection_pb2.ServerReflectionRequest(list_services="")]),
                    timeout=10,
                    metadata=showing(token),
                )
                assert await outcome(first(call)) == outcome_of
                servers = channelz_pb2_grpc.ChannelzStub(channel)
                asked = servers.GetServers(
                    channelz_pb2.GetServersRequest(), timeout=10, metadata=showing(token)
                )
                assert await outcome(asked) == outcome_of

    check(tmp_path, main)
