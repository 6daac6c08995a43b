"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

from deploy.workspace import Workspace

WorkspaceOption = Annotated[
    Path,
    typer.Option("--workspace", envvar="HEADRACE_WORKSPACE", help="Folder of models, releases and state."),
]
DEFAULT_WORKSPACE = Path(".headrace")

ControllerOption = Annotated[
    str, typer.Option("--controller", help="HOST:PORT; default: the workspace's own cluster.")
]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]


def controller_address(given: str, workspace: Path) -> str:
    """Return the address given, or that of the workspace's cluster; raises `Unavailable` without either."""
    return given or Workspace(workspace).running().controller
