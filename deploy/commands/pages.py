"""`headrace pages`: what a release would have shown, as events of a data set."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    DataDirOption,
    DatasetOption,
    SurfaceOption,
    WorkspaceOption,
)
from deploy.folders import cache_dir
from deploy.gate_rule import gate_rule
from deploy.known_recipes import dataset_of
from deploy.progress import query_progress
from deploy.release_files import only_surface, read_release
from deploy.workspace import Workspace
from training.datasets import parquet, sources
from training.datasets.splits import rows_of
from training.evaluation.offline import open_cascade
from training.page_log import PageSize, with_pages


def pages(
    out: Annotated[Path, typer.Argument(help="Folder of Parquet tables to write; --dataset takes it.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    surface: SurfaceOption = "",
    dataset: DatasetOption = "",
    split: Annotated[Literal["train", "valid", "test"], typer.Option(help="Whose searches.")] = "test",
    shown: Annotated[int, typer.Option(min=1, help="Items of a page.")] = 10,
    unshown: Annotated[int, typer.Option(min=1, help="Items behind it that are remembered.")] = 20,
    data_dir: DataDirOption = None,
) -> None:
    """Answer a split's searches by a release, and write the data set with what pages showed and did not.

    A release knows all before the test, so only pages of the test are as good as when serving.
    """
    folders = Workspace(workspace)
    release = read_release(folders, surface or only_surface(folders))
    name = dataset or dataset_of(release.surface, folders)
    data = sources.load(name, cache_dir=cache_dir(), data_dir=data_dir, seed=0)
    queries = rows_of(data.queries, split)
    with query_progress("making pages", len(queries)) as on_query:
        made = with_pages(
            data,
            queries,
            open_cascade(release, folders.models_dir),
            gate=gate_rule(release, folders.models_dir),
            size=PageSize(shown=shown, unshown=unshown),
            on_query=on_query,
        )
    parquet.save(made, out)
    typer.echo(f"{len(made.events) - len(data.events):,} events of {len(queries):,} pages in {out}")
