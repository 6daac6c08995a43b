"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.workspace import Workspace
from protos.headrace.v1 import types_pb2 as pb
from shards.errors import FieldViolation, InvalidInput

WorkspaceOption = Annotated[
    Path,
    typer.Option("--workspace", envvar="HEADRACE_WORKSPACE", help="Folder of models, releases and state."),
]
DEFAULT_WORKSPACE = Path(".headrace")

ControllerOption = Annotated[
    str, typer.Option("--controller", help="HOST:PORT; default: the workspace's own cluster.")
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Stay until it is done, or print the operation's id at once.")
]


def controller_address(given: str, workspace: Path) -> str:
    """Return the address given, or that of the workspace's cluster; raises `Unavailable` without either."""
    return given or Workspace(workspace).running().controller


def model_version(name: str) -> pb.ModelVersion:
    """Return the bundle of MODEL@VERSION; raises `InvalidInput` for what is none."""
    model, _, version = name.rpartition("@")
    if not (model and version):
        raise InvalidInput(FieldViolation("model", f"must be MODEL@VERSION, not {name!r}"))
    return pb.ModelVersion(model=model, version=version)
