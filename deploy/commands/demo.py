"""`headrace demo`: from nothing to searches in a cluster on this machine."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.commands.options import DEFAULT_SHARDS, DEFAULT_WORKSPACE, WorkspaceOption
from deploy.commands.up import cluster_settings, print_ready, say
from deploy.release_files import surfaces
from deploy.search_view import render
from deploy.steps_apart import train_apart
from deploy.supervisor import Addresses, run_cluster
from deploy.workspace import Workspace
from router.client import HeadraceClient

SURFACE = "movielens"
SEARCHES = (("adventure", "1"), ("adventure", "405"), ("", "1"))
"""Query and user: one query for two users, and a user who only browses."""

_SEARCH_TIMEOUT_S = 5.0


def demo(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    shards: Annotated[int, typer.Option(min=1, help="Shards to run.")] = DEFAULT_SHARDS,
    router_port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the routers; 0 for any.")] = 0,
    exit_after: Annotated[
        bool, typer.Option("--exit", help="Stop after the searches instead of staying up.")
    ] = False,
) -> None:
    """Train on MovieLens-100K, start a cluster, send three searches and stay up until Ctrl-C.

    The first run downloads the data and trains for some minutes; later ones start at once.
    """
    folders = Workspace(workspace.absolute())
    with folders.claim():  # Refuses before the training, not after it, where a cluster runs already.
        if SURFACE not in surfaces(folders):
            say("Training on MovieLens-100K; the first time this takes some minutes …")
            train_apart(SURFACE, "--workspace", str(folders.root))
    settings = cluster_settings(folders.root, shards=shards, replicas=None, router_port=router_port)

    async def show(addresses: Addresses) -> None:
        print_ready(addresses)
        await _search(addresses.router)
        if not exit_after:
            _print_next_steps(addresses, workspace)
            await asyncio.Event().wait()

    run_cluster(settings, show, say)


async def _search(router: str) -> None:
    console = Console()
    async with HeadraceClient(router, timeout_s=_SEARCH_TIMEOUT_S) as client:
        for query, user_id in SEARCHES:
            result = await client.search(SURFACE, query, user_id=user_id, page_size=5)
            console.print(render(result, query=query, user_id=f"user {user_id}", explain=False))


def _print_next_steps(addresses: Addresses, workspace: Path) -> None:
    where = "" if workspace == DEFAULT_WORKSPACE else f" --workspace {workspace}"
    typer.echo(
        "\nFrom another terminal:\n"
        f'  headrace search "star wars" --user 1 --explain{where}\n'
        f"  headrace status{where}\n"
        f"  any gRPC client: headrace.v1.SearchService on {addresses.router}, found by reflection\n"
        "Ctrl-C stops the cluster."
    )
