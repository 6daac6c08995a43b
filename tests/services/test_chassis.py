"""Every server: health, reflection, channelz, deadlines, errors, limits and a graceful stop."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from google.rpc.status_pb2 import Status
from grpc_channelz.v1 import channelz_pb2, channelz_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from protos.headrace.v1 import event_service_pb2, event_service_pb2_grpc
from services import chassis, status
from services.chassis import ChassisOptions, Register
from shards.errors import DeadlineExceeded, NotOwner, Unavailable
from tests.services.failing_server import failing_server, raised_by

NAME = "headrace.v1.EventService"
METHOD = f"/{NAME}/Echo"

Unary = Callable[[bytes, Any], Awaitable[bytes]]


def unary(handle: Unary) -> Register:
    """Register a handler of bytes, as the router's proxy does."""
    return _register(grpc.unary_unary_rpc_method_handler(handle))


def _register(handler: "grpc.RpcMethodHandler[bytes, bytes]") -> Register:
    def add(server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, {"Echo": handler}),))

    return add


async def echo(request: bytes, _: Any) -> bytes:
    return request


def method(channel: grpc.aio.Channel) -> Callable[..., Any]:
    """Return the call of bytes; the stubs cannot type one without serialisers."""
    call: Callable[..., Any] = channel.unary_unary(METHOD)
    return call


def stream_method(channel: grpc.aio.Channel) -> Callable[..., Any]:
    """Return the call of bytes that is answered by a stream."""
    call: Callable[..., Any] = channel.unary_stream(METHOD)
    return call


def connect(address: str) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(address, options=chassis.channel_options())


def test_health_reflection_and_channelz() -> None:
    async def main() -> None:
        async with (
            chassis.serve("127.0.0.1:0", register=[unary(echo)], service_names=[NAME]) as server,
            connect(server.address) as channel,
        ):
            health = health_pb2_grpc.HealthStub(channel)
            for service in ("", NAME):
                answer = await health.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING
            await server.set_serving(NAME, False)
            answer = await health.Check(health_pb2.HealthCheckRequest(service=NAME), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await health.Check(health_pb2.HealthCheckRequest(service="unknown"), timeout=10)
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND

            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
                iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=10
            )
            (listed,) = [answer async for answer in call]
            names = {service.name for service in listed.list_services_response.service}
            assert names >= {NAME, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"}

            servers = await channelz_pb2_grpc.ChannelzStub(channel).GetServers(
                channelz_pb2.GetServersRequest(), timeout=10
            )
            assert len(servers.server) >= 1

    asyncio.run(main())


def test_health_can_be_watched_through_the_interceptor() -> None:
    async def main() -> None:
        async with (
            chassis.serve("127.0.0.1:0", register=[], service_names=[NAME]) as server,
            connect(server.address) as channel,
        ):
            request = health_pb2.HealthCheckRequest(service=NAME)
            watch = health_pb2_grpc.HealthStub(channel).Watch(request, timeout=10)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            await server.set_serving(NAME, False)
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()

    asyncio.run(main())


def test_an_unplanned_error_is_internal_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with failing_server(KeyError("a secret")) as address:
            error = await raised_by(address, metadata=(("x-request-id", "r-17"),))
            assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
            details = dict(error.trailing_metadata())[status.DETAILS_KEY]
            assert b"secret" not in details
            info = ErrorInfo()
            assert Status.FromString(details).details[0].Unpack(info)
            assert info.metadata["request_id"] == "r-17"

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    (record,) = caplog.records
    assert "r-17" in record.getMessage()
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


def test_planned_errors_are_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with failing_server(Unavailable("x")) as address:
            await raised_by(address)

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert caplog.records == []


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotImplementedError("an operator of torch"), grpc.StatusCode.INTERNAL),
        (NotOwner("m"), grpc.StatusCode.FAILED_PRECONDITION),
        (
            grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), grpc.aio.Metadata()),
            grpc.StatusCode.UNAVAILABLE,
        ),
    ],
)
def test_errors_of_handlers_of_bytes_and_of_streams(error: Exception, code: grpc.StatusCode) -> None:
    async def fail(_: bytes, __: Any) -> bytes:
        raise error

    async def stream(request: bytes, _: Any) -> AsyncIterator[bytes]:
        yield request
        raise error

    async def check_stream(channel: grpc.aio.Channel) -> None:
        call = stream_method(channel)(b"x", timeout=10)
        assert await call.read() == b"x"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() is code

    async def main() -> None:
        async with (
            chassis.serve("127.0.0.1:0", register=[unary(fail)], service_names=[]) as server,
            connect(server.address) as channel,
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(channel)(b"x", timeout=10)
            assert caught.value.code() is code
        streaming = _register(grpc.unary_stream_rpc_method_handler(stream))
        async with (
            chassis.serve("127.0.0.1:0", register=[streaming], service_names=[]) as server,
            connect(server.address) as channel,
        ):
            await check_stream(channel)

    asyncio.run(main())


def test_a_method_nobody_wrote_is_unimplemented() -> None:
    class Unwritten(event_service_pb2_grpc.EventServiceServicer):
        """Leaves the generated method as it is."""

    def register(server: grpc.aio.Server) -> None:
        servicer: Any = Unwritten  # The stubs hold it abstract, which it is not at run time.
        event_service_pb2_grpc.add_EventServiceServicer_to_server(servicer(), server)

    async def main() -> None:
        async with (
            chassis.serve("127.0.0.1:0", register=[register], service_names=[NAME]) as server,
            connect(server.address) as channel,
        ):
            stub = event_service_pb2_grpc.EventServiceStub(channel)
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.RecordEvents(event_service_pb2.RecordEventsRequest(), timeout=10)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert NAME in (caught.value.details() or "")

    asyncio.run(main())


def test_a_stream_whose_caller_leaves_is_closed() -> None:
    async def main() -> None:
        closed = asyncio.Event()

        async def stream(request: bytes, _: Any) -> AsyncIterator[bytes]:
            try:
                yield request
                await asyncio.Event().wait()
            finally:
                closed.set()

        streaming = _register(grpc.unary_stream_rpc_method_handler(stream))
        async with (
            chassis.serve("127.0.0.1:0", register=[streaming], service_names=[]) as server,
            connect(server.address) as channel,
        ):
            call = stream_method(channel)(b"x")
            assert await call.read() == b"x"
            call.cancel()
            async with asyncio.timeout(10):
                await closed.wait()

    asyncio.run(main())


def test_a_handler_may_abort_by_itself() -> None:
    async def fail(_: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "mine")

    async def main() -> None:
        async with (
            chassis.serve("127.0.0.1:0", register=[unary(fail)], service_names=[]) as server,
            connect(server.address) as channel,
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(channel)(b"x", timeout=10)
            assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.OUT_OF_RANGE, "mine")

    asyncio.run(main())


def test_a_call_without_deadline_gets_one() -> None:
    remaining: list[float] = []

    async def hang(_: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
        remaining.append(chassis.remaining_s(context, default_s=0.05))
        await asyncio.Event().wait()
        return b""

    async def main() -> None:
        options = ChassisOptions(default_deadline_s=0.05)
        async with (
            chassis.serve("127.0.0.1:0", register=[unary(hang)], service_names=[], options=options) as server,
            connect(server.address) as channel,
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(channel)(b"x")
            assert isinstance(status.from_rpc_error(caught.value), DeadlineExceeded)
            assert caught.value.details() == "no answer within 0.05 s"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(channel)(b"x", timeout=0.2)
            assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    asyncio.run(main())
    assert remaining[0] == 0.05
    assert 0.05 < remaining[1] <= 0.25


def test_a_callers_deadline_cancels_the_handler_in_peace(caplog: pytest.LogCaptureFixture) -> None:
    cancelled: list[bool] = []

    async def main() -> None:
        ended = asyncio.Event()

        async def hang(_: bytes, __: Any) -> bytes:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(True)
                ended.set()
                raise
            return b""

        async with (
            chassis.serve("127.0.0.1:0", register=[unary(hang)], service_names=[]) as server,
            connect(server.address) as channel,
        ):
            call = method(channel)(b"x", timeout=0.05)
            with pytest.raises(grpc.aio.AioRpcError):
                await call
            async with asyncio.timeout(10):
                await ended.wait()

    with caplog.at_level(logging.WARNING):
        asyncio.run(main())
    assert cancelled == [True]
    assert caplog.records == []


def test_messages_are_limited() -> None:
    async def main() -> None:
        options = ChassisOptions(max_message_bytes=1000)
        async with (
            chassis.serve("127.0.0.1:0", register=[unary(echo)], service_names=[], options=options) as server,
            connect(server.address) as channel,
        ):
            call = method(channel)
            assert await call(b"x" * 900, timeout=10) == b"x" * 900
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"x" * 1100, timeout=10)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        async with (
            chassis.serve("127.0.0.1:0", register=[unary(echo)], service_names=[]) as server,
            connect(server.address) as channel,
        ):
            large = b"x" * (8 * 2**20)
            assert await method(channel)(large, timeout=30) == large

    asyncio.run(main())


def test_a_taken_address_is_refused() -> None:
    async def main() -> None:
        async with chassis.serve("127.0.0.1:0", register=[], service_names=[]) as server:
            with pytest.raises(Unavailable, match=server.address):
                async with chassis.serve(server.address, register=[], service_names=[]):
                    raise AssertionError("it listens twice")

    asyncio.run(main())


def test_a_stop_lets_calls_in_flight_finish() -> None:
    async def main() -> None:
        entered, release = asyncio.Event(), asyncio.Event()

        async def slow(request: bytes, _: Any) -> bytes:
            entered.set()
            await release.wait()
            return request

        async with (
            chassis.serve("127.0.0.1:0", register=[unary(slow)], service_names=[NAME]) as server,
            connect(server.address) as channel,
        ):
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
            await watch.read()
            call = method(channel)(b"x", timeout=10)
            await entered.wait()
            stop = asyncio.create_task(server.stop(10))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()
            release.set()
            assert await call == b"x"
            await stop

    asyncio.run(main())


def test_options_must_make_sense() -> None:
    for wrong in ({"max_message_bytes": 0}, {"grace_s": -1.0}, {"default_deadline_s": 0.0}):
        with pytest.raises(ValueError, match="must be positive"):
            ChassisOptions(**wrong)


def test_a_connection_that_is_old_is_replaced_and_no_call_is_lost() -> None:
    async def main() -> None:
        options = ChassisOptions(max_connection_age_s=0.2, max_connection_age_grace_s=5.0, grace_s=0.0)
        peers: set[str] = set()

        async def note(request: bytes, context: Any) -> bytes:
            peers.add(context.peer())
            return request

        async with (
            chassis.serve(
                "127.0.0.1:0", register=[unary(note)], service_names=[NAME], options=options
            ) as server,
            # As callers have it who set nothing: gRPC itself sends again what a server has not begun.
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            async with asyncio.timeout(10):
                while len(peers) < 5:
                    assert await method(channel)(b"x", timeout=5) == b"x"

    asyncio.run(main())


def test_connection_ages_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="max_connection_age_s"):
        ChassisOptions(max_connection_age_s=-1.0)


def test_calls_that_nobody_has_time_to_look_at_are_turned_away() -> None:
    async def main() -> None:
        options = ChassisOptions(max_pending=4, grace_s=0.0)

        async def keep_busy(request: bytes, _: Any) -> bytes:
            until_s = time.monotonic() + 0.02
            while time.monotonic() < until_s:
                pass
            return request

        async with (
            chassis.serve(
                "127.0.0.1:0", register=[unary(keep_busy)], service_names=[NAME], options=options
            ) as server,
            connect(server.address) as channel,
        ):
            calls = [method(channel)(b"x", timeout=10) for _ in range(60)]
            codes = [await call.code() for call in calls]
            assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}
            assert await method(channel)(b"x", timeout=10) == b"x"

    asyncio.run(main())


def test_a_connection_has_so_many_calls_open_and_the_others_wait_for_their_turn() -> None:
    async def main() -> None:
        open_now = most = 0

        async def count(request: bytes, _: Any) -> bytes:
            nonlocal open_now, most
            open_now += 1
            most = max(most, open_now)
            await asyncio.sleep(0.001)
            open_now -= 1
            return request

        options = ChassisOptions(max_streams=4, grace_s=0.0)
        async with (
            chassis.serve(
                "127.0.0.1:0", register=[unary(count)], service_names=[NAME], options=options
            ) as server,
            connect(server.address) as channel,
        ):
            calls = [method(channel)(b"x", timeout=30) for _ in range(1_000)]
            assert Counter([await call.code() for call in calls]) == {grpc.StatusCode.OK: 1_000}
            assert most == 4

    asyncio.run(main())
