"""The table of SECURITY.md, held against the contract, against the tests it names and against real ports."""

import ast
import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from router.router_server import SERVICES as ROUTER_SERVICES
from services import chassis, cluster_servicer, shard_servicer, stages
from services.access import Role, internal_only, roles_for
from tests.services.callers import access, showing
from tests.services.contract import services

ROOT = Path(__file__).resolve().parent.parent.parent
PORTS = {
    "router": (ROUTER_SERVICES, roles_for),
    "controller": ((cluster_servicer.SERVICE_NAME,), roles_for),
    "shard": ((*stages.SERVICE_NAMES, shard_servicer.SERVICE_NAME), internal_only),
}
"""What each kind of process serves, and how it knows the roles of a method."""


@dataclass(frozen=True)
class Row:
    """A row of the table; methods as SERVICE/METHOD."""

    port: str
    methods: tuple[str, ...]
    roles: tuple[str, ...]
    proof: str


def table() -> list[Row]:
    text = (ROOT / "SECURITY.md").read_text().partition("## Who may call what")[2]
    lines = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [
        Row(
            port=re.split(r"\W", port)[0],
            methods=tuple(re.findall(r"`(\w+Service/\w+)`", methods)),
            roles=tuple(re.findall(r"`(\w+)`", roles)),
            proof=proof.strip("`"),
        )
        for port, methods, roles, proof in lines[2:]
    ]


ROWS = table()


def test_every_method_of_the_contract_is_in_the_table() -> None:
    served = {f"{service.name}/{method.name}" for service in services() for method in service.methods}
    assert {method for row in ROWS for method in row.methods} == served


@pytest.mark.parametrize("port", PORTS)
def test_the_table_has_all_that_a_port_serves_and_no_more(port: str) -> None:
    served = {service.full_name: service for service in services()}
    names, _ = PORTS[port]
    methods = [f"{served[name].name}/{method.name}" for name in names for method in served[name].methods]
    told = [method for row in ROWS if row.port == port for method in row.methods]
    assert sorted(told) == sorted(methods)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.proof)
def test_the_tests_that_the_table_names_are_there(row: Row) -> None:
    if row.proof.startswith("none: "):
        assert row.port == "metrics"
        return
    path, _, name = row.proof.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("port", PORTS)
def test_every_method_turns_every_wrong_role_away(port: str) -> None:
    names, roles = PORTS[port]

    async def unimplemented(_: bytes, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "let in")

    def register(server: grpc.aio.Server) -> None:
        for service in services():
            if service.full_name in names:
                handlers: dict[str, Any] = {
                    method.name: grpc.unary_unary_rpc_method_handler(unimplemented)
                    for method in service.methods
                }
                server.add_generic_rpc_handlers(
                    (grpc.method_handlers_generic_handler(service.full_name, handlers),)
                )

    async def outcome(channel: grpc.aio.Channel, method: str, token: str | None) -> str:
        call: Callable[..., Any] = channel.unary_unary(f"/headrace.v1.{method}")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call(b"", timeout=10, metadata=showing(token))
        return caught.value.code().name

    async def main() -> None:
        async with (
            chassis.serve(
                "127.0.0.1:0", register=[register], service_names=names, access=access, roles=roles
            ) as server,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            for row in (row for row in ROWS if row.port == port):
                for method in row.methods:
                    assert await outcome(channel, method, None) == "UNAUTHENTICATED", method
                    for role in Role:
                        let_in = role.value in row.roles
                        wanted = "UNIMPLEMENTED" if let_in else "PERMISSION_DENIED"
                        assert await outcome(channel, method, f"{role.value}-token") == wanted, method

    asyncio.run(main())
