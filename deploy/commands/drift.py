"""`headrace drift`: how good the answers of a running cluster are."""

from typing import Annotated

import typer

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    ControllerOption,
    JsonOption,
    WorkspaceOption,
    controller_address,
)
from deploy.controller_client import TIMEOUT_S, ask
from deploy.views.live_quality import alarms_of, drift_table, recall_table
from deploy.views.table import show
from protos.headrace.v1 import cluster_service_pb2 as pb

FailOption = Annotated[bool, typer.Option("--check", help="Exit with 1 where there is an alarm.")]


def drift(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    check: FailOption = False,
    as_json: JsonOption = False,
) -> None:
    """Show the recall of every index beside an exact search, and scores and features that have drifted."""
    address = controller_address(controller, workspace)
    found = ask(address, lambda stub: stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S))
    show(found, recall_table(found.models), drift_table(found.models), as_json=as_json)
    if check and any(alarms_of(model) for model in found.models):
        raise typer.Exit(1)
