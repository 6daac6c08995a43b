"""`headrace shards`: what holds the models."""

import typer

from deploy.cluster_view import shards_table, show
from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    ControllerOption,
    JsonOption,
    WorkspaceOption,
    controller_address,
)
from deploy.controller_client import TIMEOUT_S, ask
from protos.headrace.v1 import cluster_service_pb2 as pb

app = typer.Typer(no_args_is_help=True)


@app.callback()
def shards() -> None:
    """List shards."""


@app.command("list")
def list_shards(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show every shard, its state and its memory."""
    address = controller_address(controller, workspace)
    response = ask(address, lambda stub: stub.ListShards(pb.ListShardsRequest(), timeout=TIMEOUT_S))
    show(response, shards_table(response.shards), as_json=as_json)
