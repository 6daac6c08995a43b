"""`headrace keys`: keys that sign bundles."""

import os
from pathlib import Path
from typing import Annotated

import typer

from shards.errors import FieldViolation, InvalidInput
from shards.signature import new_key, public_name, read_key

app = typer.Typer(help="Make keys that sign bundles.", no_args_is_help=True)


@app.callback()
def _named() -> None:
    """Keep `make` a command of its own."""


@app.command()
def make(
    key: Annotated[Path, typer.Argument(help="File for the private key; must not exist.")],
) -> None:
    """Write a new private key, readable by its owner alone, and print the public key.

    What is printed is a line for the file of `--trusted-keys`.
    """
    try:
        descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise InvalidInput(FieldViolation(str(key), f"cannot be written: {error.strerror}")) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(new_key())
    typer.echo(f"{public_name(read_key(key))} {key.stem}")
