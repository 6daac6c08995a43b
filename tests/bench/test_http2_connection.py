"""The load generator's connection against a real gRPC server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest

from tests.bench.http2_connection import Http2Connection, Reply

_METHOD = "/test.Echo/Repeat"


async def _repeat(request: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
    """Return the request as often as its first byte says; 0 is an error."""
    if not request[0]:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "nothing to repeat")
    return request[1:] * request[0]


@asynccontextmanager
async def echo() -> AsyncIterator[str]:
    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(_repeat)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", {"Repeat": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)


def answers(address: str, requests: list[bytes]) -> list[Reply]:
    """Send all requests at once and return the answers in the order of the requests."""
    connection = Http2Connection(address, _METHOD)
    try:
        streams = [connection.send(request) for request in requests]
        found: dict[int, Reply] = {}
        while len(found) < len(requests):
            found |= {reply.stream: reply for reply in connection.receive()}
        return [found[stream] for stream in streams]
    finally:
        connection.close()


def test_answers_come_whole() -> None:
    async def check() -> None:
        async with echo() as address:
            # Larger than a frame, larger than the window that HTTP/2 begins with, and none at all.
            requests = [b"\x01", b"\x01x", b"\xff" + b"y" * 10_000, b"\xff" + b"z" * 1_000]
            replies = await asyncio.to_thread(answers, address, requests)
        assert all(reply.ok for reply in replies)
        assert [reply.message for reply in replies] == [request[1:] * request[0] for request in requests]

    asyncio.run(check())


def test_one_connection_serves_many_calls() -> None:
    async def check() -> None:
        async with echo() as address:
            requests = [b"\x01" + str(number).encode() * 50 for number in range(200)]
            replies = await asyncio.to_thread(answers, address, requests)
        assert [reply.message for reply in replies] == [request[1:] for request in requests]

    asyncio.run(check())


def test_an_error_is_no_answer() -> None:
    async def check() -> None:
        async with echo() as address:
            good, bad, again = await asyncio.to_thread(answers, address, [b"\x01a", b"\x00a", b"\x01b"])
        assert good.ok
        assert again.ok
        assert not bad.ok
        assert (good.code, bad.code) == (0, grpc.StatusCode.INVALID_ARGUMENT.value[0])
        assert b"nothing to repeat" in bad.trailers

    asyncio.run(check())


def test_a_server_that_ends_is_told() -> None:
    async def check() -> None:
        async with echo() as address:
            connection = Http2Connection(address, _METHOD)
            connection.send(b"\x01a")
            assert (await asyncio.to_thread(connection.wait)).ok
        with pytest.raises(ConnectionError):
            await asyncio.to_thread(connection.wait)
        connection.close()

    asyncio.run(check())
