"""`headrace ops`: what was asked of a cluster, how far it is and how it ended."""

from typing import TYPE_CHECKING, Annotated

import typer

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    ControllerOption,
    JsonOption,
    WorkspaceOption,
    controller_address,
)
from deploy.controller_client import TIMEOUT_S, ask
from deploy.operation_watch import CHANGE_TIMEOUT_S, await_end
from deploy.views.operations import operation_facts, operations_table, what
from deploy.views.table import show
from protos.headrace.v1 import cluster_service_pb2 as pb
from shards.errors import FieldViolation, InvalidInput, NotFound

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

app = typer.Typer(no_args_is_help=True)

OperationArgument = Annotated[
    str, typer.Argument(metavar="OPERATION", help="Its id, or the first letters of it.")
]


@app.callback()
def ops() -> None:
    """Look at operations, wait for them, cancel them."""


@app.command("list")
def list_operations(
    running: Annotated[bool, typer.Option("--running", help="Only those under way.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show the operations under way and the last that ended, oldest first."""
    response = ask(controller_address(controller, workspace), _list)
    if running:
        kept = [o for o in response.operations if o.state == pb.OPERATION_STATE_RUNNING]
        response = pb.ListOperationsResponse(operations=kept)
    show(response, operations_table(response.operations), as_json=as_json)


@app.command("show")
def show_operation(
    operation: OperationArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show one operation: what was asked for, how far it is, why it failed."""
    found = ask(controller_address(controller, workspace), lambda stub: _named(stub, operation))
    show(found, *operation_facts(found), as_json=as_json)


@app.command("wait")
def wait(
    operation: OperationArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Stay with an operation until it has ended; exit code 1 unless it succeeded."""
    address = controller_address(controller, workspace)
    await_end(address, ask(address, lambda stub: _named(stub, operation)), as_json=as_json)


@app.command("cancel")
def cancel(
    operation: OperationArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Take back what a running operation asked for; what it has loaded already is let go again."""

    async def cancelled(stub: "ClusterServiceAsyncStub") -> pb.Operation:
        found = await _named(stub, operation)
        request = pb.CancelOperationRequest(operation_id=found.operation_id)
        return (await stub.CancelOperation(request, timeout=CHANGE_TIMEOUT_S)).operation

    ended = ask(controller_address(controller, workspace), cancelled)
    detail = f": {ended.detail}" if ended.detail else ""
    show(ended, f"{what(ended)} is cancelled{detail}", as_json=as_json)


async def _list(stub: "ClusterServiceAsyncStub") -> pb.ListOperationsResponse:
    return await stub.ListOperations(pb.ListOperationsRequest(), timeout=TIMEOUT_S)


async def _named(stub: "ClusterServiceAsyncStub", name: str) -> pb.Operation:
    """Return the operation whose id starts so; raises `NotFound`, and `InvalidInput` for several."""
    operations = (await _list(stub)).operations
    found = [o for o in operations if name and o.operation_id.startswith(name)]
    if len(found) > 1:
        ids = ", ".join(o.operation_id for o in found)
        raise InvalidInput(FieldViolation("operation", f"{name!r} begins the ids of several: {ids}"))
    if not found:
        raise NotFound("operation", name)
    return found[0]
