"""`headrace router`: one router in the foreground; it knows nothing of Ray."""

from pathlib import Path
from typing import Annotated

import typer

from deploy import foreground, router_process
from deploy.commands import options
from deploy.commands.options import DEFAULT_WORKSPACE, WorkspaceOption
from deploy.commands.up import cluster_settings
from services.telemetry_settings import ROUTER
from services.user_history import KEPT_EVENT_IDS, KEPT_EVENTS
from shards.errors import FieldViolation, InvalidInput

DEFAULT_PORT = 50051


def router(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: Annotated[str, typer.Option(help="HOST:PORT of the controller to follow.")] = "",
    consul: options.ConsulOption = "",
    consul_prefix: options.ConsulPrefixOption = "headrace",
    consul_ca: options.ConsulCaOption = None,
    consul_cert: options.ConsulCertOption = None,
    consul_key: options.ConsulKeyOption = None,
    host: options.HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any.")] = DEFAULT_PORT,
    user_store: options.UserStoreOption = "",
    user_store_ca: options.UserStoreCaOption = None,
    kept_events: options.KeptEventsOption = KEPT_EVENTS,
    kept_event_ids: options.KeptEventIdsOption = KEPT_EVENT_IDS,
    models: Annotated[
        Path | None,
        typer.Option(help="Folder of bundles, for the models of gates; default: that of the workspace."),
    ] = None,
    access: options.AccessOption = None,
    tls: options.TlsOption = None,
    router_mtls: options.RouterMtlsOption = True,
    trusted_keys: options.TrustedKeysOption = None,
    reflection: options.ReflectionOption = True,
    insecure: options.InsecureOption = False,
    serving: options.ServingOption = None,
    telemetry: options.TelemetryOption = None,
) -> None:
    """Run a router until SIGTERM or Ctrl-C, which first finishes the searches in flight.

    Prints READY router=HOST:PORT. It follows a controller, Consul or both, and keeps the last placement
    in the workspace, from which it serves while neither can be reached. HEADRACE_TOKEN is shown to the
    controller.
    """
    if not controller and not consul:
        raise InvalidInput(FieldViolation("settings", "a router follows --controller, --consul or both"))
    settings = cluster_settings(
        workspace,
        shards=1,
        replicas=1,
        host=host,
        router_port=port,
        controller_address=controller,
        serving_path=options.absolute(serving),
        telemetry_path=options.absolute(telemetry),
        models_path=options.absolute(models),
        supervised=False,
        **options.user_store(user_store, user_store_ca, kept_events, kept_event_ids),
        **options.security(
            access, tls, trusted_keys, reflection=reflection, insecure=insecure, router_mtls=router_mtls
        ),
        **options.consul_agent(consul, consul_prefix, consul_ca, consul_cert, consul_key),
    )
    foreground.log_to_stderr(settings, ROUTER)
    settings.folders.state_dir.mkdir(parents=True, exist_ok=True)
    foreground.run("router", settings, router_process.serve)
