"""`headrace models`: the bundles that a cluster knows."""

import typer

from deploy.cluster_view import models_table, show
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
def models() -> None:
    """List models."""


@app.command("list")
def list_models(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show every model, its stage and the shards that serve it."""
    address = controller_address(controller, workspace)
    response = ask(address, lambda stub: stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S))
    show(response, models_table(response.models), as_json=as_json)
