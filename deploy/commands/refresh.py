"""`headrace refresh`: a release as of a later moment, without training."""

from typing import Annotated

import typer
from rich.console import Console

from deploy.commands.options import DEFAULT_WORKSPACE, DataDirOption, QuerySeedOption, WorkspaceOption
from deploy.commands.train import RecipeArgument, RecipeDatasetOption, showing_progress
from deploy.folders import cache_dir
from deploy.known_recipes import dataset_named, recipe_named
from deploy.moments import told_moment_ms
from deploy.refreshing import refresh_release, run_of
from deploy.release_files import read_release, write_release
from deploy.workspace import Workspace
from training.datasets import sources
from training.datasets.tables import timestamps_ms


def refresh(
    recipe: RecipeArgument = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    dataset: RecipeDatasetOption = "",
    until: Annotated[
        str, typer.Option(help="The moment, say 2010-11-08T00:00, in UTC; default: after the newest event.")
    ] = "",
    version: Annotated[
        str, typer.Option(help="Version of the bundles; default: made from release, data and moment.")
    ] = "",
    seed: QuerySeedOption = 0,
    data_dir: DataDirOption = None,
) -> None:
    """Make a release's tables and statistics again as of a moment; models stay as they were trained."""
    folders = Workspace(workspace)
    named = recipe_named(recipe, folders)
    asked_ms = told_moment_ms(until, "until") if until else None
    release = read_release(folders, named.surface)
    source = dataset_named(dataset, named, folders)
    data = sources.load(source, cache_dir=cache_dir(), data_dir=data_dir, seed=seed)
    now_ms = int(timestamps_ms(data.events).max(initial=0)) + 1 if asked_ms is None else asked_ms
    with showing_progress(Console(stderr=True)) as observe:
        run = run_of(named, data, release, folders, observe)
        refreshed = refresh_release(run, release, folders, now_ms, version=version)
    write_release(folders, refreshed)
    typer.echo(f"{refreshed.surface} {refreshed.version}")
