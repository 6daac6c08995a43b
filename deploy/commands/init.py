"""`headrace init`: a project from a team's own tables."""

import re
from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.options import absolute
from deploy.project_file import DataSection
from deploy.project_making import make_project, read_tables_again
from deploy.workspace import PROJECT_FILE
from shards.errors import FieldViolation, InvalidInput
from training.datasets.own_shop import ReadShop

_SURFACE = re.compile(r"[a-z0-9][a-z0-9_-]*")


def init(
    folder: Annotated[
        Path, typer.Argument(help="New folder, or an existing project whose tables are read again.")
    ],
    items: Annotated[Path | None, typer.Option(help="Parquet file of what can be found.")] = None,
    events: Annotated[Path | None, typer.Option(help="Parquet file of what users did.")] = None,
    queries: Annotated[
        Path | None, typer.Option(help="Parquet file of searches; default: made from titles.")
    ] = None,
    users: Annotated[
        Path | None, typer.Option(help="Parquet file of users; default: those of the events.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option("--map", help="TABLE.OURS=THEIRS, say events.user_id=customer; may be repeated."),
    ] = None,
    taken: Annotated[
        list[str] | None,
        typer.Option(help="Action by which an item counts as found; may be repeated. Default: purchases."),
    ] = None,
    surface: Annotated[str, typer.Option(help="Name of the search product; default: the folder's.")] = "",
) -> None:
    """Check your tables, make what they lack, and write a project that `headrace up` trains and serves.

    Every problem is listed at once, and nothing is written then. In an existing project the tables are read
    again, as its headrace.toml says.
    """
    if (folder / PROJECT_FILE).is_file():
        if items or events or queries or users or columns or taken or surface:
            problem = f"{folder / PROJECT_FILE} is there, and says where its tables are; change it there"
            raise InvalidInput(FieldViolation("init", problem))
        _report(read_tables_again(folder), folder, new=False)
        return
    data = DataSection(
        items=absolute(items),
        events=absolute(events),
        queries=absolute(queries),
        users=absolute(users),
        columns=_told(columns or ()),
        taken=tuple(taken or ()),
    )
    _report(make_project(folder.absolute(), _surface(surface, folder), data), folder, new=True)


def _surface(told: str, folder: Path) -> str:
    name = told or re.sub(r"[^a-z0-9_-]+", "-", folder.absolute().name.lower()).strip("-_")
    if not _SURFACE.fullmatch(name):
        raise InvalidInput(
            FieldViolation("surface", f"{name!r} must be lower-case letters, digits, '-' and '_'")
        )
    return name


def _told(columns: list[str] | tuple[()]) -> dict[str, dict[str, str]]:
    told: dict[str, dict[str, str]] = {}
    for each in columns:
        ours, equals, theirs = each.partition("=")
        table, dot, column = ours.partition(".")
        if not (equals and dot and column and theirs) or table not in ("items", "events", "queries", "users"):
            raise InvalidInput(FieldViolation("map", f"{each!r} is not TABLE.OURS=THEIRS"))
        told.setdefault(table, {})[column] = theirs
    return told


def _report(read: ReadShop, folder: Path, *, new: bool) -> None:
    for table, names in read.renamed.items():
        for ours, theirs in names.items():
            typer.echo(f"  {table}.{ours} is {theirs!r} of the file", err=True)
    for note in read.notes:
        typer.echo(f"  {note}", err=True)
    counts = ", ".join(f"{len(table):,} {name}" for name, table in read.dataset.tables().items())
    typer.echo(f"{folder}: {counts}")
    next_step = f"cd {folder} && headrace up" if new else f"headrace train --project {folder}"
    typer.echo(f"Next: {next_step}", err=True)
