"""`headrace console`: a web page over a cluster that runs, wherever it does."""

from pathlib import Path
from typing import Annotated

import typer

from deploy import foreground
from deploy.commands import options
from deploy.commands.options import DEFAULT_WORKSPACE, WorkspaceOption
from deploy.console.console_settings import LOOPBACK_NAMES, ConsoleSettings
from deploy.console.server import Door, serve_console
from deploy.ports import is_loopback
from deploy.settings import ClusterSettings, caller_credentials
from deploy.workspace import Workspace

DEFAULT_PORT = 8600


def console(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    router: Annotated[str, typer.Option(help="HOST:PORT; default: the workspace's own cluster.")] = "",
    controller: options.ControllerOption = "",
    host: options.HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any.")] = DEFAULT_PORT,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Host name by which browsers ask for it, beside localhost; may be repeated."),
    ] = None,
    operate: Annotated[
        bool, typer.Option("--operate", help="Allow changes of a cluster that asks nobody for a token.")
    ] = False,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate to serve with.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    insecure: Annotated[
        bool, typer.Option("--insecure", help="Listen beyond this machine without TLS.")
    ] = False,
    gate_report: Annotated[
        Path | None, typer.Option(help="The gate.json of `headrace gate report --out`, for the gate's curve.")
    ] = None,
) -> None:
    """Serve the console until SIGTERM or Ctrl-C. Prints READY console=HOST:PORT."""
    folders = Workspace(workspace)
    door = Door(host=host, port=port, cert_path=tls_cert, key_path=tls_key, insecure=insecure)
    names = frozenset(name or ())
    settings = ConsoleSettings(
        router=router or folders.running().router,
        controller=controller or folders.running().controller,
        operate=operate,
        names=names | LOOPBACK_NAMES if names or is_loopback(host) else frozenset(),
        # Another cluster's releases and metrics are not those of this folder.
        workspace=None if controller else folders.root,
        gate_report=gate_report or folders.gate_report_path,
        tls=caller_credentials().tls,
    )
    cluster = ClusterSettings(workspace=str(folders.root.absolute()), supervised=False, process="console")
    foreground.log_to_stderr(cluster, "console")
    foreground.run("console", cluster, lambda _, announce: serve_console(settings, door, announce))
