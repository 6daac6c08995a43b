"""Staying with an operation until it ends, and telling how far it is."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

import grpc
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from deploy.controller_client import ask
from deploy.views.operations import steps, took, what
from deploy.views.table import show
from protos.headrace.v1 import cluster_service_pb2 as pb
from services.status import from_rpc_error
from shards.errors import Refused, Unavailable

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

CHANGE_TIMEOUT_S = 60.0
"""A change is answered when it is committed; what it takes after that, the operation tells."""

INTERRUPTED = 130
"""Exit status after Ctrl-C."""

_LOOK_EVERY_S = 0.1
_LOOK_TIMEOUT_S = 10.0
_PATIENCE_S = 60.0
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class HasOperation(Protocol):
    """The response of every method that changes a cluster."""

    @property
    def operation(self) -> pb.Operation: ...  # noqa: D102


Request = Callable[["ClusterServiceAsyncStub"], Awaitable[HasOperation]]


def carry_out(address: str, request: Request, *, wait: bool, as_json: bool) -> pb.Operation | None:
    """Ask for a change, stay with it until it has ended, and print how; without `wait` print its id.

    Returns the operation when it was waited for and succeeded, else None. Raises what the controller
    refuses it with, and `Refused` with the reason when it fails later. Ctrl-C ends the waiting, not
    the operation.
    """

    async def asked(stub: "ClusterServiceAsyncStub") -> pb.Operation:
        return (await request(stub)).operation

    operation = ask(address, asked)
    if not wait and operation.state == pb.OPERATION_STATE_RUNNING:
        show(operation, operation.operation_id, as_json=as_json)
        return None
    return await_end(address, operation, as_json=as_json)


def await_end(address: str, operation: pb.Operation, *, as_json: bool) -> pb.Operation:
    """Stay with an operation until it has ended, and print how; raises `Refused` unless it succeeded."""

    async def followed(stub: "ClusterServiceAsyncStub") -> pb.Operation:
        with OperationProgress() as progress:
            return await follow(stub, operation, progress.tell)

    try:
        operation = ask(address, followed)
    except KeyboardInterrupt:
        typer.echo(_goes_on(operation.operation_id), err=True)
        raise typer.Exit(INTERRUPTED) from None
    if as_json:
        show(operation, as_json=True)
    if operation.state != pb.OPERATION_STATE_SUCCEEDED:
        raise Refused(operation.detail or f"{what(operation)} was cancelled")
    if not as_json:
        typer.echo(f"{what(operation)}: {operation.detail or 'done'}, after {took(operation)}")
    return operation


def _goes_on(operation_id: str) -> str:
    return (
        f"The operation goes on. `headrace ops wait {operation_id}` waits for it again, "
        f"`headrace ops cancel {operation_id}` takes it back."
    )


async def follow(
    stub: "ClusterServiceAsyncStub", operation: pb.Operation, tell: Callable[[pb.Operation], None]
) -> pb.Operation:
    """Return the operation once it has ended; `tell` is told whatever is seen of it.

    A controller that restarts goes on with its operations, so its silence is borne for a minute.
    Raises `Unavailable` after that.
    """
    request = pb.GetOperationRequest(operation_id=operation.operation_id)
    answered_s = time.monotonic()
    while operation.state == pb.OPERATION_STATE_RUNNING:
        tell(operation)
        await asyncio.sleep(_LOOK_EVERY_S)
        try:
            answer = await stub.GetOperation(request, timeout=_LOOK_TIMEOUT_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            if error.code() not in _GONE:
                raise from_rpc_error(error) from error
            if time.monotonic() - answered_s > _PATIENCE_S:
                problem = f"the controller has not answered for {_PATIENCE_S:.0f} s"
                raise Unavailable(f"{problem}; operation {operation.operation_id} may go on") from error
        else:
            operation, answered_s = answer.operation, time.monotonic()
    tell(operation)
    return operation


class OperationProgress:
    """Shows on standard error how far an operation is: a bar on a terminal, else a line for each news."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._told = ""
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TextColumn("{task.fields[steps]}"),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[detail]}", markup=True),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=None, steps="", detail="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def tell(self, operation: pb.Operation) -> None:
        """Show what is new."""
        if not self._bar.disable:
            self._bar.update(
                self._task,
                description=what(operation),
                total=operation.steps_total or None,
                completed=operation.steps_done,
                steps=steps(operation),
                detail=operation.detail,
            )
            return
        if line := progress_line(operation):
            if line != self._told:
                typer.echo(line, err=True)
            self._told = line


def progress_line(operation: pb.Operation) -> str:
    """Return in a line what a running operation is doing; nothing for one that has ended."""
    if operation.state != pb.OPERATION_STATE_RUNNING:
        return ""
    far = f" ({steps(operation)})" if operation.steps_total else ""
    return f"  {operation.detail or what(operation)}{far}"
