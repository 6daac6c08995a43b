"""`headrace gate`: what the query-selection gate saves and what it costs."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    ControllerOption,
    DataDirOption,
    DatasetOption,
    JsonOption,
    LimitOption,
    QuerySeedOption,
    SplitOption,
    SurfaceOption,
    WorkspaceOption,
    controller_address,
)
from deploy.controller_client import TIMEOUT_S, ask
from deploy.views.releases import gates_table
from deploy.views.table import show
from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb

app = typer.Typer(no_args_is_help=True)


@app.callback()
def gate() -> None:
    """Show what the query-selection gate saves and what it costs."""


@app.command("shadow")
def shadow(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what closed gates save and lose, on the sample of searches that ran with an open one as well."""
    address = controller_address(controller, workspace)
    found = ask(address, lambda stub: stub.ListReleases(pb.ListReleasesRequest(), timeout=TIMEOUT_S))
    show(found, gates_table(found.surfaces), as_json=as_json)


@app.command("report")
def report(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    surface: SurfaceOption = "",
    dataset: DatasetOption = "",
    split: SplitOption = "test",
    limit: LimitOption = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder for gate.json and gate.png; it is made where there is none.")
    ] = None,
    data_dir: DataDirOption = None,
    seed: QuerySeedOption = 0,
    as_json: JsonOption = False,
) -> None:
    """Draw trigger rate against quality: gate always or never open, by chance, by rules, by the model.

    Every query is answered with the gate closed and with it open, in one process.
    """
    # The report needs torch and FAISS, which operators' machines may lack.
    from deploy.gate_picture import draw
    from deploy.gate_report import as_document, render
    from deploy.gate_run import run_report
    from deploy.held_out import HeldOut

    held_out = HeldOut(
        surface=surface, dataset=dataset, split=split, limit=limit, data_dir=data_dir, seed=seed
    )
    found = run_report(Workspace(workspace), held_out)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        (out / "gate.json").write_text(json.dumps(as_document(found), indent=2) + "\n")
        draw(found, out / "gate.png")
    if as_json:
        typer.echo(json.dumps(as_document(found), indent=2))
    else:
        Console().print(render(found))
