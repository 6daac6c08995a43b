"""`headrace users`: fill a user store, and embed those in it."""

import asyncio
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from deploy.commands import options
from deploy.commands.options import DEFAULT_WORKSPACE, DataDirOption, WorkspaceOption
from deploy.commands.train import showing_progress
from deploy.folders import cache_dir
from deploy.moments import told_moment_ms
from deploy.release_files import only_surface, read_release
from deploy.settings import user_store_place
from deploy.user_loading import load_users
from deploy.workspace import Workspace
from services.redis_settings import RedisSettings
from services.user_store_settings import UserStoreSettings
from shards.errors import FieldViolation, InvalidInput
from training.datasets import sources

app = typer.Typer(help="Fill a user store, and embed its users.", no_args_is_help=True)


@app.callback()
def users() -> None:
    """Fill a user store, and embed its users."""


@app.command()
def load(
    dataset: Annotated[str, typer.Argument(help="A dataset's name or a folder of Parquet tables.")],
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    user_store: options.UserStoreOption = "",
    user_store_ca: options.UserStoreCaOption = None,
    data_dir: DataDirOption = None,
) -> None:
    """Replace the features and the history of every user of a dataset, all or none.

    `headrace train` does so for the workspace's own store.
    """
    place = _place(user_store, user_store_ca, workspace)
    data = sources.load(dataset, cache_dir=cache_dir(), data_dir=data_dir)
    count = load_users(data, place)
    typer.echo(f"{count} users")


@app.command()
def embed(
    surface: Annotated[
        str, typer.Argument(help="The surface whose release asks with stored vectors; default: the only one.")
    ] = "",
    active_days: Annotated[
        float, typer.Option(help="Embed who did something within so many days before the moment.")
    ] = 90.0,
    now: Annotated[
        str,
        typer.Option(help="The moment, ISO 8601; default: that of a run broken off, the release's, or now."),
    ] = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    user_store: options.UserStoreOption = "",
    user_store_ca: options.UserStoreCaOption = None,
    workers: Annotated[int, typer.Option(min=0, help="Ray workers; 0 works in this process.")] = 2,
    ray: Annotated[
        str,
        typer.Option("--ray", help="HOST:PORT of a Ray whose nodes share the workspace; default: its own."),
    ] = "",
    block_users: Annotated[
        int, typer.Option(min=1, help="Users that are embedded, and lost, together.")
    ] = 2048,
) -> None:
    """Embed the active users and put their vectors into the user store, for searches to ask with.

    A search of a user without a vector, or with one of another version, runs the query tower as ever.
    """
    # They take torch and Ray, which filling a store does without.
    from deploy.ray_session import ray_session
    from deploy.user_embedding import UserJob, asking_with_stored, embed_users, moment_of

    folders = Workspace(workspace.absolute())
    release = read_release(folders, surface or only_surface(folders))
    asking = dict(asking_with_stored(release, folders.models_dir))
    if not asking:
        problem = f"no channel of {release.name} asks with stored vectors: stored_vectors of its recipe"
        raise InvalidInput(FieldViolation("surface", problem))
    settings = UserStoreSettings(place=_place(user_store, user_store_ca, workspace))
    told_ms = told_moment_ms(now, "now") if now else None
    for model, bundle in asking.items():
        folder = folders.embedded_users_dir / str(model)
        known_ms = release.as_of_ms if release.as_of_ms is not None else int(time.time() * 1000)
        now_ms = moment_of(folder, known_ms) if told_ms is None else told_ms
        job = UserJob(
            model=model,
            bundle=bundle,
            folder=folder,
            now_ms=now_ms,
            history_limit=release.history_limit,
            active_days=active_days,
            block_users=block_users,
            workers=workers,
        )
        with ray_session(ray, workers), showing_progress(Console(stderr=True)) as observe:
            made = asyncio.run(embed_users(job, settings, observe=observe))
        typer.echo(f"{made.users} users by {made.model}")
        typer.echo(f"{made.blocks_embedded} of {made.blocks} blocks embedded now", err=True)


def _place(user_store: str, user_store_ca: Path | None, workspace: Path) -> Path | RedisSettings:
    try:
        place = user_store_place(options.user_store_location(user_store), options.absolute(user_store_ca))
    except ValueError as error:
        raise InvalidInput(FieldViolation("user-store", str(error))) from error
    return place or Workspace(workspace).users_path
