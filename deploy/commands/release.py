"""`headrace release`: bring releases live and list them."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from deploy.caller_channel import caller_channel
from deploy.cluster_view import releases_table, show
from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    ControllerOption,
    JsonOption,
    WorkspaceOption,
    controller_address,
)
from deploy.controller_client import TIMEOUT_S, ask
from deploy.readiness import deploy as deploy_through
from deploy.release_files import read_release_file, write_release
from deploy.settings import caller_token
from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from shards.release import Release

app = typer.Typer(no_args_is_help=True)


@app.callback()
def release() -> None:
    """Deploy releases and list them."""


@app.command("deploy")
def deploy(
    file: Annotated[Path, typer.Argument(help="The release as JSON, for instance releases/movielens.json.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
) -> None:
    """Load a release's models, replay their goldens, and only then let it answer for its surface.

    What was live stays live when anything is refused. The workspace keeps the release for the next `up`.
    """
    wanted = read_release_file(file)
    operation = asyncio.run(_deploy(controller_address(controller, workspace), wanted))
    if not controller:
        write_release(Workspace(workspace), wanted)
    typer.echo(f"{wanted.surface} {wanted.version} is {operation.detail}")


async def _deploy(controller: str, wanted: Release) -> pb.Operation:
    async with caller_channel(controller, caller_token()) as channel:
        return await deploy_through(channel, wanted, lambda line: typer.echo(line, err=True))


@app.command("list")
def list_releases(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show the live release of every surface."""
    address = controller_address(controller, workspace)
    response = ask(address, lambda stub: stub.GetPlacement(pb.GetPlacementRequest(), timeout=TIMEOUT_S))
    show(response.placement, releases_table(response.placement), as_json=as_json)
