"""The console as a process of the cluster."""

from collections.abc import Callable

from deploy import child
from deploy.console.console_settings import ConsoleSettings
from deploy.console.server import Door, serve_console
from deploy.settings import ClusterSettings, process_certificates
from services.tls import Party


async def serve(settings: ClusterSettings, announce: Callable[[str], None]) -> None:
    """Serve the pages until cancelled, on this machine alone; visitors bring their own tokens."""
    assert settings.console_port is not None
    folders = settings.folders
    shown = ConsoleSettings(
        router=f"{settings.host}:{settings.router_port}",
        controller=f"{settings.host}:{settings.controller_port}",
        operate=settings.console_operate,
        workspace=folders.root,
        gate_report=folders.gate_report_path,
        # Nobody's rules name the controller: visitors show who they are by their tokens.
        tls=process_certificates(settings, Party.CONTROLLER),
    )
    await serve_console(shown, Door(port=settings.console_port), announce)


if __name__ == "__main__":
    child.run(child.enter(), serve)
