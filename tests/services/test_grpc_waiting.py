"""The switches of gRPC are ones that its installed release knows, and give way to the operator's."""

import os
import subprocess
import sys

import pytest

from deploy.settings import PROJECT_ROOT
from services.grpc_waiting import wait_on_the_asking_thread

_ONE_CALL = """
import asyncio
from services.grpc_waiting import wait_on_the_asking_thread
wait_on_the_asking_thread()
import grpc

async def main():
    async def echo(payload, context):
        return payload
    methods = {"Echo": grpc.unary_unary_rpc_method_handler(echo)}
    handler = grpc.method_handlers_generic_handler("t.Test", methods)
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((handler,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        print((await channel.unary_unary("/t.Test/Echo")(b"yes", timeout=10)).decode())
    await server.stop(0)

asyncio.run(main())
"""


def test_grpc_knows_its_switches_and_calls_pass() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _ONE_CALL], cwd=PROJECT_ROOT, capture_output=True, text=True, timeout=60
    )
    assert ran.stdout == "yes\n"
    assert "nknown" not in ran.stderr


def test_what_the_operator_says_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRPC_EXPERIMENTS", "theirs")
    wait_on_the_asking_thread()
    assert os.environ["GRPC_EXPERIMENTS"] == "theirs"


def test_releases_with_other_switches_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GRPC_EXPERIMENTS", raising=False)
    monkeypatch.setattr("services.grpc_waiting.version", lambda _: "1.99.0")
    wait_on_the_asking_thread()
    assert "GRPC_EXPERIMENTS" not in os.environ
