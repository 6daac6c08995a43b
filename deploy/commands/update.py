"""`headrace update`: a released model that goes on learning from what came since."""

import time
from typing import Annotated

import typer
from rich.console import Console

from deploy.commands.options import DEFAULT_WORKSPACE, DataDirOption, WorkspaceOption
from deploy.commands.train import (
    RecipeArgument,
    RecipeDatasetOption,
    SeedOption,
    ThreadsOption,
    showing_progress,
)
from deploy.folders import cache_dir
from deploy.known_recipes import dataset_named, recipe_named
from deploy.moments import told_moment_ms
from deploy.updating import UpdateOptions, update_release
from deploy.workspace import Workspace
from training.datasets import sources


def update(
    recipe: RecipeArgument = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    dataset: RecipeDatasetOption = "",
    tables_only: Annotated[
        bool,
        typer.Option(
            "--tables-only", help="Only embedding tables learn; for the minutes between two full updates."
        ),
    ] = False,
    until: Annotated[
        str,
        typer.Option(
            help="Learn from what came before this moment, ISO 8601; default: where the data's test starts."
        ),
    ] = "",
    seed: SeedOption = 0,
    threads: ThreadsOption = 1,
    version: Annotated[str, typer.Option(help="Version to write; default: made from the moment.")] = "",
    data_dir: DataDirOption = None,
) -> None:
    """Go on training the two-tower model of a release, and write the release that uses it.

    Learns from searches that the released version does not know yet, and adds items that came since.
    `headrace release deploy` then makes it live without a pause.
    """
    started = time.perf_counter()
    folders = Workspace(workspace)
    named = recipe_named(recipe, folders)
    options = UpdateOptions(
        tables_only=tables_only,
        until_ms=told_moment_ms(until, "until") if until else None,
        seed=seed,
        threads=threads,
        version=version,
    )
    source = dataset_named(dataset, named, folders)
    data = sources.load(source, cache_dir=cache_dir(), data_dir=data_dir, seed=seed)
    console = Console(stderr=True)
    with showing_progress(console) as observe:
        release = update_release(named, data, folders, options, observe)
    console.print(f"Updated in {time.perf_counter() - started:.0f} s.", highlight=False)
    typer.echo(f"{release.surface} {release.version}")
