"""`headrace up`: a cluster on this machine, in the foreground."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Any, Never

import typer

from deploy.commands import options
from deploy.commands.options import DEFAULT_REPLICAS, DEFAULT_SHARDS, DEFAULT_WORKSPACE, WorkspaceOption
from deploy.project import project_of
from deploy.project_preparing import prepare, with_project
from deploy.settings import ClusterSettings
from deploy.supervisor import Addresses, run_cluster
from deploy.workspace import workspace_of
from services.user_history import KEPT_EVENT_IDS, KEPT_EVENTS
from shards.errors import FieldViolation, InvalidInput

_UNTOLD = ("DEFAULT", "DEFAULT_MAP")


def up(
    context: typer.Context,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    project: options.ProjectOption = None,
    shards: options.ShardsOption = DEFAULT_SHARDS,
    replicas: options.ReplicasOption = None,
    routers: Annotated[int, typer.Option(min=1, help="Routers to run, all on one port.")] = 2,
    controllers: Annotated[
        int, typer.Option(min=1, help="Controllers to run, of whom one leads; several need --consul.")
    ] = 1,
    host: Annotated[
        str, typer.Option(help="Address that the router and the controller listen on.")
    ] = "127.0.0.1",
    router_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the router; 0 for any.")] = 0,
    controller_port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the controller; 0 for any.")
    ] = 0,
    device: options.DeviceOption = "cpu",
    shard_memory_mb: options.ShardMemoryOption = 0,
    gpu_fraction: options.GpuFractionOption = 0.0,
    ray_address: Annotated[
        str, typer.Option(help="HOST:PORT of a Ray that runs already; default: one of the cluster's own.")
    ] = "",
    shard_cpus: Annotated[
        float | None,
        typer.Option(min=0, help="Ray's logical CPUs that a shard takes; default: 1 with --ray-address."),
    ] = None,
    shard_label: options.ShardLabelOption = None,
    consul: options.ConsulOption = "",
    consul_prefix: options.ConsulPrefixOption = "headrace",
    consul_ca: options.ConsulCaOption = None,
    consul_cert: options.ConsulCertOption = None,
    consul_key: options.ConsulKeyOption = None,
    user_store: options.UserStoreOption = "",
    user_store_ca: options.UserStoreCaOption = None,
    kept_events: options.KeptEventsOption = KEPT_EVENTS,
    kept_event_ids: options.KeptEventIdsOption = KEPT_EVENT_IDS,
    access: options.AccessOption = None,
    console_port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port of a console on this machine's loopback; 0 for any. Default: none."
        ),
    ] = None,
    console_operate: Annotated[
        bool,
        typer.Option("--console-operate", help="Let the console change a cluster that has no --access."),
    ] = False,
    tls: options.TlsOption = None,
    router_mtls: options.RouterMtlsOption = True,
    trusted_keys: options.TrustedKeysOption = None,
    reflection: options.ReflectionOption = True,
    insecure: options.InsecureOption = False,
    planning: options.PlanningOption = None,
    serving: options.ServingOption = None,
    telemetry: options.TelemetryOption = None,
) -> None:
    """Start a cluster, deploy the workspace's releases, and keep everything running until Ctrl-C.

    In a project's folder it trains first where nothing is trained yet, and goes by headrace.toml.
    Prints one line, READY router=HOST:PORT controller=HOST:PORT [console=HOST:PORT], once every surface can
    be searched.
    """
    settings = cluster_settings(
        workspace_of(project, workspace).root,
        shards=shards,
        replicas=replicas,
        routers=routers,
        controllers=controllers,
        host=host,
        router_port=router_port,
        controller_port=controller_port,
        device=device,
        shard_memory_bytes=shard_memory_mb * 2**20,
        console_port=console_port,
        console_operate=console_operate,
        planning_path=options.absolute(planning),
        serving_path=options.absolute(serving),
        telemetry_path=options.absolute(telemetry),
        **_ray_settings(ray_address, shard_cpus, gpu_fraction, shard_label),
        **options.user_store(user_store, user_store_ca, kept_events, kept_event_ids),
        **options.security(
            access, tls, trusted_keys, reflection=reflection, insecure=insecure, router_mtls=router_mtls
        ),
        **options.consul_agent(consul, consul_prefix, consul_ca, consul_cert, consul_key),
    )
    own = project_of(settings.folders)
    if own is not None:
        settings = with_project(settings, own, _named(context))
        prepare(own, say)
    run_cluster(settings, _announce_and_stay, say)


def _named(context: typer.Context) -> frozenset[str]:
    """Return the options that the operator gave, in place of those that have their default."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return frozenset(name for name, source in sources.items() if source and source.name not in _UNTOLD)


def _ray_settings(
    address: str, shard_cpus: float | None, gpu_fraction: float, labels: list[str] | None
) -> dict[str, Any]:
    if address:
        cpus = options.JOINED_SHARD_CPUS if shard_cpus is None else shard_cpus
        return options.joined_ray(address, cpus, gpu_fraction, labels)
    if labels:
        raise InvalidInput(
            FieldViolation("shard-label", "the cluster's own Ray has one node; labels choose none")
        )
    return {"shard_cpus": shard_cpus or 0.0, "gpu_fraction": gpu_fraction}


def cluster_settings(
    workspace: Path, *, shards: int, replicas: int | None, **others: object
) -> ClusterSettings:
    """Return the settings; raises `InvalidInput` for those that contradict each other."""
    try:
        return ClusterSettings(
            workspace=str(workspace.absolute()),
            shards=shards,
            replicas=min(DEFAULT_REPLICAS, shards) if replicas is None else replicas,
            **others,  # type: ignore[arg-type]
        )
    except ValueError as error:
        raise InvalidInput(FieldViolation("settings", str(error))) from error


def say(line: str) -> None:
    """Tell the operator on standard error; standard output is for READY."""
    typer.echo(line, err=True)


def print_ready(addresses: Addresses) -> None:
    """Print the line that scripts wait for."""
    console = f" console={addresses.console}" if addresses.console else ""
    sys.stdout.write(f"READY router={addresses.router} controller={addresses.controller}{console}\n")
    sys.stdout.flush()


async def _announce_and_stay(addresses: Addresses) -> Never:
    print_ready(addresses)
    await asyncio.Event().wait()
    raise AssertionError("nobody sets this event")
