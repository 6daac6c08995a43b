"""Makes a project's folder from a shop's own tables: whole, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from deploy.project import read_project
from deploy.project_file import DataSection
from deploy.project_recipe import check_columns, project_recipe
from deploy.project_toml import render_project
from deploy.workspace import PROJECT_FILE
from services.durable_file import replace_file, sync_folder
from shards.errors import Conflict, FieldViolation, InvalidInput, Unavailable
from training.datasets import parquet
from training.datasets.own_shop import OwnShop, ReadShop, read_shop

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
        text = render_project(
            surface, said, read.columns, ranking_days=read.ranking_days, comments=read.notes
        )
        replace_file(made / PROJECT_FILE, text.encode())
    return read


def read_tables_again(folder: Path) -> ReadShop:
    """Check the tables of a project as its file says, and put them in place of those it has.

    Raises `InvalidInput` that lists every problem of the tables; the project is as it was then.
    """
    project = read_project(folder)
    read = read_shop(_shop(project.surface, project.file.data, project.folder))
    check_columns(project, project_recipe(project), read.dataset)
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


@contextmanager
def _made_whole(folder: Path) -> Iterator[Path]:
    """Yield a folder that takes the place of this one once all in it is on the disk; else it is removed.

    Raises `Unavailable` where it cannot be written, say to a full disk.
    """
    try:
        with _beside(folder) as scratch:
            made = scratch / "made"
            made.mkdir()
            yield made
            _sync(made)
            if folder.exists():
                folder.rename(scratch / "before")
            made.rename(folder)
            sync_folder(folder.parent)
    except OSError as error:
        raise Unavailable(f"{folder} cannot be written: {error}") from error


@contextmanager
def _beside(folder: Path) -> Iterator[Path]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        yield Path(scratch)


def _sync(folder: Path) -> None:
    """Bring every file below the folder to the disk."""
    for path in sorted(folder.rglob("*")):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_folder(folder)
