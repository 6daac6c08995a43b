"""`headrace down`: stop the cluster of a workspace from another terminal."""

import os
import signal
import time

import typer

from deploy.commands.options import DEFAULT_WORKSPACE, WorkspaceOption
from deploy.workspace import Workspace
from shards.errors import Unavailable

_PATIENCE_S = 60.0


def down(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Stop the cluster that runs in the workspace and wait until it is gone."""
    folders = Workspace(workspace)
    pid = folders.claimant().pid
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + _PATIENCE_S
    while folders.claimed():
        if time.monotonic() > deadline_s:
            raise Unavailable(f"process {pid} has not stopped within {_PATIENCE_S:.0f} s")
        time.sleep(0.1)
    typer.echo(f"Stopped the cluster in {workspace}.")
