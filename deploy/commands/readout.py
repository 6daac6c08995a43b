"""`headrace release readout`: what users did with the answers of each release of a surface."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from deploy.commands.options import DEFAULT_WORKSPACE, WorkspaceOption
from deploy.moments import told_moment_ms
from deploy.outcome_lines import read_lines
from deploy.readout import Readout, readout
from deploy.views.table import new_table
from deploy.workspace import Workspace
from shards.errors import NotFound


def release_readout(
    surface: Annotated[str, typer.Argument(metavar="SURFACE", help="The surface.")],
    action: Annotated[list[str], typer.Option(help="An action to count; may be given again.")] = ["click"],  # noqa: B006
    window_min: Annotated[
        float, typer.Option(min=0.0, help="How long after a search an event without its id may count for it.")
    ] = 30.0,
    since: Annotated[str, typer.Option(help="ISO 8601; default: when the last release came in.")] = "",
    base: Annotated[str, typer.Option(metavar="VERSION", help="What the others are compared with.")] = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Show for each release its searches, how many of them led to an action, and the difference."""
    found = readout(
        partial(read_lines, Workspace(workspace).outcomes_dir),
        surface,
        action,
        window_ms=round(window_min * 60_000),
        base=base,
        since_ms=told_moment_ms(since, "--since") if since else None,
    )
    if not found.arms:
        raise NotFound("search that routers wrote down (router.outcomes.on in --serving) of surface", surface)
    if as_json:
        typer.echo(json.dumps(asdict(found), indent=2))
        return
    console = Console()
    console.print(_arms_table(found, action))
    if found.differences:
        console.print(_differences_table(found))
    console.print(_left_out(found), highlight=False)


def _arms_table(found: Readout, actions: list[str]) -> Table:
    since = datetime.fromtimestamp(found.since_ms / 1000, UTC).isoformat(timespec="seconds")
    headings = ("release", "users", "searches", *(f"{action} ± 95 %" for action in actions))
    table = new_table(f"{found.surface} since {since}", *headings, numeric=headings[1:], long=("release",))
    for arm in found.arms:
        shares = (f"{s.value:.2%} ± {s.error:.2%}" for s in (arm.shares[action] for action in actions))
        table.add_row(arm.release, f"{arm.users:,}", f"{arm.searches:,}", *shares)
    return table


def _differences_table(found: Readout) -> Table:
    headings = ("release", "action", "difference ± 95 %", "")
    table = new_table(f"Beside {found.base}", *headings, numeric=headings[2:3], long=("release",))
    for each in found.differences:
        said = ("more" if each.value > 0 else "fewer") if each.sure else "may be chance"
        table.add_row(each.release, each.action, f"{each.value:+.2%} ± {each.error:.2%}", said)
    return table


def _left_out(found: Readout) -> str:
    return (
        f"left out: {found.visitors:,} searches without a user, {found.pinned:,} that named a release, "
        f"{found.switched:,} users who met several releases, {found.unread:,} lines that cannot be read"
    )
