"""One service on loopback whose methods a test answers itself."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio

from services import chassis
from services.followed_rules import RulesSource


@asynccontextmanager
async def scripted_service(
    name: str, handlers: "dict[str, grpc.RpcMethodHandler[Any, Any]]", access: RulesSource | None
) -> AsyncIterator[str]:
    """Serve these methods to whom the rules allow them, where there are any; gives the address."""

    def register(server: grpc.aio.Server) -> None:
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))

    options = chassis.ChassisOptions(grace_s=0)
    async with chassis.serve(
        "127.0.0.1:0", register=[register], service_names=[name], options=options, access=access
    ) as server:
        yield server.address
