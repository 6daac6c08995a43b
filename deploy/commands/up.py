"""`headrace up`: a cluster on this machine, in the foreground."""

import asyncio
import sys
from pathlib import Path
from typing import Annotated, Never

import typer

from deploy.commands.options import DEFAULT_WORKSPACE, WorkspaceOption
from deploy.settings import ClusterSettings
from deploy.supervisor import Addresses, run_cluster
from shards.errors import FieldViolation, InvalidInput

DEFAULT_SHARDS = 2
DEFAULT_REPLICAS = 2


def up(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    shards: Annotated[int, typer.Option(min=1, help="Shards to run.")] = DEFAULT_SHARDS,
    replicas: Annotated[
        int | None, typer.Option(min=1, help="Shards that hold each model; default: 2, or 1 of one shard.")
    ] = None,
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
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    shard_memory_mb: Annotated[
        int, typer.Option(min=0, help="Memory for models on each shard; 0 divides most of the host's.")
    ] = 0,
    consul: Annotated[
        str, typer.Option(help="HOST:PORT of a Consul agent that keeps the placement; see docs/consul.md.")
    ] = "",
    consul_prefix: Annotated[str, typer.Option(help="Where in Consul; one per cluster.")] = "headrace",
    access: Annotated[
        Path | None, typer.Option(help="JSON file of who may call; see docs/access.md. Default: everybody.")
    ] = None,
) -> None:
    """Start a cluster, deploy the workspace's releases, and keep everything running until Ctrl-C.

    Prints one line, READY router=HOST:PORT controller=HOST:PORT, once every surface can be searched.
    """
    settings = cluster_settings(
        workspace,
        shards=shards,
        replicas=replicas,
        routers=routers,
        controllers=controllers,
        host=host,
        router_port=router_port,
        controller_port=controller_port,
        device=device,
        shard_memory_bytes=shard_memory_mb * 2**20,
        consul_address=consul,
        consul_prefix=consul_prefix,
        access_path=str(access.absolute()) if access else "",
    )
    run_cluster(settings, _announce_and_stay, say)


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
    sys.stdout.write(f"READY router={addresses.router} controller={addresses.controller}\n")
    sys.stdout.flush()


async def _announce_and_stay(addresses: Addresses) -> Never:
    print_ready(addresses)
    await asyncio.Event().wait()
    raise AssertionError("nobody sets this event")
