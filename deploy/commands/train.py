"""`headrace train`: from a dataset to bundles, a release and users in the workspace."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from deploy.commands.options import DEFAULT_WORKSPACE, DataDirOption, ProjectOption, WorkspaceOption
from deploy.folders import cache_dir
from deploy.known_recipes import dataset_named, recipe_named
from deploy.project import project_of, project_with
from deploy.project_file import RecipeSection
from deploy.project_recipe import check_columns, project_recipe
from deploy.project_training import note_training
from deploy.training import TrainingOptions, train_release, tuned_folder
from deploy.workspace import Workspace, workspace_of
from training.datasets import sources
from training.datasets.digest import digest_of
from training.datasets.tables import Dataset
from training.overrides import with_overrides
from training.pipeline import Trained
from training.recipe_tuning import read_best
from training.recipes import RECIPES
from training.trainer import Advanced, EpochEnded, Observer, PhaseStarted

RecipeArgument = Annotated[
    str, typer.Argument(help=f"One of {', '.join(RECIPES)}; default: the project's, where there is one.")
]
RecipeDatasetOption = Annotated[
    str, typer.Option(help="A dataset's name or a folder of Parquet tables; default: the recipe's.")
]
SeedOption = Annotated[int, typer.Option(help="Equal seeds give bundles with equal scores.")]
ThreadsOption = Annotated[int, typer.Option(min=1, help="Threads of torch; part of what makes runs equal.")]


def train(
    recipe: RecipeArgument = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    project: ProjectOption = None,
    dataset: RecipeDatasetOption = "",
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting, say two_tower.fit.epochs=3; repeatable."),
    ] = None,
    seed: Annotated[
        int | None,
        typer.Option(help="Equal seeds give equal scores; default: the project's, or 0."),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(min=1, help="Threads of torch; part of what makes runs equal; default: 1."),
    ] = None,
    version: Annotated[
        str, typer.Option(help="Version of the bundles; default: made from recipe, data and seed.")
    ] = "",
    replace: Annotated[bool, typer.Option(help="Write bundles of the same version again.")] = False,
    workers: Annotated[
        int, typer.Option(min=0, help="Ray workers that train together; 0 trains in this process.")
    ] = 0,
    ray: Annotated[
        str,
        typer.Option("--ray", help="HOST:PORT of a Ray whose nodes share the workspace; default: its own."),
    ] = "",
    tuned: Annotated[
        bool, typer.Option("--tuned", help="Use the settings that `headrace tune recipe` found best.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoints of an equal run that was broken off.")
    ] = False,
    data_dir: DataDirOption = None,
) -> None:
    """Train the models of a recipe and export them as a release."""
    started = time.perf_counter()
    folders = workspace_of(project, workspace)
    named = recipe_named(recipe, folders)
    own = project_with(named.surface, folders)
    said = own.file.recipe if own else RecipeSection()
    seed, threads = said.seed if seed is None else seed, threads or said.threads
    data = _data(dataset_named(dataset, named, folders), folders, data_dir, seed)
    found = read_best(tuned_folder(folders, named.name, digest_of(data))).settings if tuned else ()
    settings = (*found, *(overrides or ()))
    chosen = with_overrides(named, settings)
    options = TrainingOptions(
        seed=seed,
        threads=threads,
        version=version,
        replace=replace,
        resume=resume,
        settings=settings,
        workers=workers,
        ray=ray,
    )
    console = Console(stderr=True)
    with showing_progress(console) as observe:
        trained = train_release(chosen, data, folders, options, observe)
    if own is not None:
        note_training(own, trained.release, overrides=tuple(overrides or ()))
    _report(console, trained, data, time.perf_counter() - started)
    typer.echo(f"{trained.release.surface} {trained.release.version}")


def _data(source: str, folders: Workspace, data_dir: Path | None, seed: int) -> Dataset:
    """Return the data set; a project's has all the columns that its file reads."""
    data = sources.load(source, cache_dir=cache_dir(), data_dir=data_dir, seed=seed)
    project = project_of(folders)
    if project is not None and source == str(project.data_dir):
        check_columns(project, project_recipe(project), data)
    return data


@contextmanager
def showing_progress(console: Console) -> Iterator[Observer]:
    """Show a bar for the phase under way and a line for each epoch."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("reading", total=None)

        def observe(event: PhaseStarted | Advanced | EpochEnded) -> None:
            match event:
                case PhaseStarted():
                    progress.reset(task, description=event.phase, total=event.total or None)
                case Advanced():
                    progress.advance(task, event.steps)
                case EpochEnded():
                    console.print(_line(event), highlight=False)

        yield observe


def _line(event: EpochEnded) -> str:
    metric = "" if event.metric != event.metric else f"  {event.metric:.4f} held out"
    return f"{event.model:<10} epoch {event.epoch:>2}  loss {event.loss:.4f}{metric}  {event.seconds:.1f} s"


def _report(console: Console, trained: Trained, data: Dataset, seconds: float) -> None:
    for name, value in trained.figures.items():
        console.print(f"{name}: {value:.4f} on queries held out of training", highlight=False)
    console.print(f"Trained in {seconds:.0f} s.", highlight=False)
    if data.queries_are_proxies:
        console.print("The queries are proxies.", highlight=False)
