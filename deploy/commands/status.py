"""`headrace status`: what runs, what it holds and what is live."""

from rich.console import Console

from deploy.cluster_view import models_table, processes_table, releases_table, shards_table
from deploy.commands.options import DEFAULT_WORKSPACE, WorkspaceOption
from deploy.controller_client import ask, overview
from deploy.processes import resident_bytes
from deploy.workspace import Workspace


def status(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Show the processes, shards, models and releases of the workspace's cluster."""
    running = Workspace(workspace).running()
    console = Console()
    console.print(
        f"router [bold]{running.router}[/]  controller [bold]{running.controller}[/]", highlight=False
    )
    pids = {"supervisor": running.pid, **running.processes}
    console.print(processes_table((name, pid, resident_bytes(pid)) for name, pid in pids.items()))
    seen = ask(running.controller, overview)
    console.print(shards_table(seen.shards))
    console.print(models_table(seen.models))
    console.print(releases_table(seen.placement))
