"""Makes a project's folder from a shop's own tables: whole, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from deploy.project import Project, read_project
from deploy.project_file import DataSection
from deploy.project_toml import render_project
from deploy.workspace import PROJECT_FILE
from services.durable_file import replace_file, sync_folder
from shards.errors import Conflict, FieldViolation, InvalidInput
from training.datasets import parquet
from training.datasets.own_shop import OwnShop, ReadShop, read_shop
from training.shop_columns import OF_EVENTS

_TABLES = ("items", "events", "users", "queries")


def make_project(folder: Path, surface: str, data: DataSection) -> ReadShop:
    """Check the tables that `data` names and write a new project.

    Paths in `data` are absolute. Raises `Conflict` where the folder holds something, and `InvalidInput`
    that lists every problem of the tables; nothing is written then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise Conflict(f"{folder} is there already; `headrace init` makes a new folder")
    read = read_shop(_shop(surface, data, Path()))
    said = replace(data, columns=read.renamed, taken=read.taken)
    with _made_whole(folder) as made:
        parquet.save(read.dataset, made / data.folder)
        text = render_project(surface, said, read.columns, read.notes)
        replace_file(made / PROJECT_FILE, text.encode())
    return read


def read_tables_again(folder: Path) -> ReadShop:
    """Check the tables of a project as its file says, and put them in place of those it has.

    Raises `InvalidInput` that lists every problem of the tables; the project is as it was then.
    """
    project = read_project(folder)
    read = read_shop(_shop(project.surface, project.file.data, project.folder))
    _refuse_others(project, read)
    with _made_whole(project.data_dir) as made:
        parquet.save(read.dataset, made)
    return read


def _shop(surface: str, data: DataSection, folder: Path) -> OwnShop:
    paths = {name: folder / getattr(data, name) for name in _TABLES if getattr(data, name)}
    if missing := [name for name in ("items", "events") if name not in paths]:
        raise InvalidInput(*(FieldViolation(name, "is not told: where is the table?") for name in missing))
    return OwnShop(
        name=surface,
        paths=paths,
        columns=data.columns,
        taken=data.taken,
        proxies=data.proxies,
        valid_share=data.valid_share,
        test_share=data.test_share,
    )


def _refuse_others(project: Project, read: ReadShop) -> None:
    """Refuse tables that lack a column that the project's file reads."""
    items, users = read.dataset.items.column_names, read.dataset.users.column_names
    known = {"user_categories": users, "user_numbers": users}
    of_events = set(OF_EVENTS) & set(read.dataset.events.column_names)
    problems = [
        FieldViolation(f"features.{kind}", f"{column!r} is no column of the tables any more")
        for kind, columns in project.file.features.items()
        for column in columns
        if column not in known.get(kind, [*items, *of_events])
    ]
    if problems:
        raise InvalidInput(*problems)


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """Yield a folder that takes the place of this one once all in it is on the disk; else it is removed."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        yield made
        _sync(made)
        if folder.exists():
            folder.rename(Path(scratch) / "before")
        made.rename(folder)
        sync_folder(folder.parent)


def _sync(folder: Path) -> None:
    """Bring every file below the folder to the disk."""
    for path in sorted(folder.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)
