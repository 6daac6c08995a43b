"""`headrace users`: fill a user store."""

from typing import Annotated

import typer

from deploy.commands import options
from deploy.commands.options import DEFAULT_WORKSPACE, DataDirOption, WorkspaceOption
from deploy.folders import cache_dir
from deploy.settings import user_store_place
from deploy.user_loading import load_users
from deploy.workspace import Workspace
from shards.errors import FieldViolation, InvalidInput
from training.datasets import sources

app = typer.Typer(help="Fill a user store.", no_args_is_help=True)


@app.callback()
def users() -> None:
    """Fill a user store."""


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
    try:
        place = user_store_place(options.user_store_location(user_store), options.absolute(user_store_ca))
    except ValueError as error:
        raise InvalidInput(FieldViolation("user-store", str(error))) from error
    data = sources.load(dataset, cache_dir=cache_dir(), data_dir=data_dir)
    count = load_users(data, place or Workspace(workspace).users_path)
    typer.echo(f"{count} users")
