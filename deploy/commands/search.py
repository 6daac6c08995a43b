"""`headrace search`: one search through a router, readable."""

import asyncio
import json
import math
import secrets
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console

from deploy.commands.options import DEFAULT_WORKSPACE, JsonOption, ProjectOption, WorkspaceOption
from deploy.release_files import only_surface
from deploy.search_view import render
from deploy.settings import caller_credentials
from deploy.workspace import workspace_of
from router.client import HeadraceClient
from router.client_results import SearchResult
from shards.ablation import MOST_EXPLAINED


def search(
    query: Annotated[
        str, typer.Argument(help="What to search for; empty browses, and then needs --user.")
    ] = "",
    user: Annotated[str, typer.Option(help="Id of the user who searches.")] = "",
    surface: Annotated[
        str, typer.Option(help="The search product, or SURFACE@RELEASE; default: the workspace's only one.")
    ] = "",
    explain: Annotated[bool, typer.Option(help="Show every stage's scores, models and timings.")] = False,
    contributions: Annotated[
        int,
        typer.Option(
            min=0, max=MOST_EXPLAINED, help="With --explain: items whose features' parts are shown."
        ),
    ] = 5,
    page_size: Annotated[int, typer.Option(min=1, max=500, help="Items wanted.")] = 10,
    router: Annotated[str, typer.Option(help="HOST:PORT; default: the workspace's own cluster.")] = "",
    timeout_s: Annotated[float, typer.Option(min=0.001, help="How long to wait for the answer.")] = 5.0,
    trace: Annotated[
        bool, typer.Option(help="Have it traced, where traces are set up; prints the trace's id.")
    ] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    project: ProjectOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send one search and show the items, the channels that brought them, and why they stand there."""
    folders = workspace_of(project, workspace)
    trace_id = secrets.token_hex(16) if trace else ""
    result = asyncio.run(
        _search(
            router or folders.running().router,
            surface or only_surface(folders),
            query,
            user=user,
            explain=explain,
            contributions=contributions if explain else 0,
            page_size=page_size,
            timeout_s=timeout_s,
            traceparent=f"00-{trace_id}-{secrets.token_hex(8)}-01" if trace else "",
        )
    )
    if trace:
        typer.echo(f"trace {trace_id}", err=True)
    if as_json:
        typer.echo(json.dumps(_as_document(result), indent=2))
    else:
        Console().print(render(result, query=query, user_id=user, explain=explain))


async def _search(
    target: str,
    surface: str,
    query: str,
    *,
    user: str,
    explain: bool,
    contributions: int,
    page_size: int,
    timeout_s: float,
    traceparent: str,
) -> SearchResult:
    shown = caller_credentials()
    async with HeadraceClient(target, shown.token, tls=shown.tls, timeout_s=timeout_s) as client:
        return await client.search(
            surface,
            query,
            user_id=user,
            page_size=page_size,
            explain=explain,
            contributions=contributions,
            traceparent=traceparent,
        )


def _as_document(result: SearchResult) -> object:
    """Return the result as plain values; NaN, which JSON lacks, becomes null."""
    return _without_nan(asdict(result))


def _without_nan(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_nan(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(held) for held in value]
    return None if isinstance(value, float) and math.isnan(value) else value
