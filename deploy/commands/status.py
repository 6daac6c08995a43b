"""`headrace status`: what runs, what it holds and what is live."""

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from deploy.commands.options import DEFAULT_WORKSPACE, WorkspaceOption
from deploy.controller_client import ask, overview
from deploy.processes import resident_bytes
from deploy.views.models import models_table
from deploy.views.operations import operations_table
from deploy.views.releases import releases_table
from deploy.views.shards import shards_table
from deploy.views.table import new_table, size
from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from services.metrics_targets import Target, metrics_targets


def status(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Show the processes, shards, models, releases and running operations of the workspace's cluster."""
    running = Workspace(workspace).running()
    console = Console()
    console.print(
        f"router [bold]{running.router}[/]  controller [bold]{running.controller}[/]", highlight=False
    )
    if running.console:
        console.print(f"console [bold]http://{running.console}[/]", highlight=False)
    pids = {"supervisor": running.pid, **running.processes}
    console.print(_processes_table((name, pid, resident_bytes(pid)) for name, pid in pids.items()))
    if scraped := metrics_targets(Workspace(workspace).metrics_dir):
        console.print(_metrics_table(scraped))
    seen = ask(running.controller, overview)
    console.print(shards_table(seen.shards, f"Shards (placement generation {seen.generation})"))
    console.print(models_table(seen.models))
    console.print(releases_table(seen.releases.surfaces))
    if under_way := [o for o in seen.operations if o.state == pb.OPERATION_STATE_RUNNING]:
        console.print(operations_table(under_way, "Operations under way"))
    if seen.frozen:
        console.print(
            "[yellow]Frozen: the controller moves nothing; `headrace shards freeze --off` ends it.[/]"
        )


def _metrics_table(scraped: Iterable[Target]) -> Table:
    """Return a table of where Prometheus finds each process."""
    table = new_table("Metrics", "process", "scraped at", long=("scraped at",))
    for target in scraped:
        table.add_row(target.process, f"http://{target.address}/metrics")
    return table


def _processes_table(rows: Iterable[tuple[str, int, int]]) -> Table:
    """Return a table of name, process id and resident bytes."""
    table = new_table("Processes", "process", "pid", "memory", numeric=("pid", "memory"))
    for name, pid, memory_bytes in rows:
        table.add_row(name, str(pid), size(memory_bytes) if memory_bytes else Text("gone", "red"))
    return table
