"""Whether `headrace` takes what somebody writes, without doing it."""

import re
from collections.abc import Sequence
from typing import Any

import click
import typer.main

from deploy import cli


def problem_of(arguments: Sequence[str]) -> str:
    """Return what is wrong with the arguments of a `headrace` command, nothing where it takes them."""
    left = list(arguments)
    command: Any = typer.main.get_command(cli.build(left))
    while left and isinstance(command, click.Group | typer.core.TyperGroup):
        name, *left = left
        if name == "--help":
            return ""
        if name not in command.commands:
            return f"no command {name!r}"
        command = command.commands[name]
    if isinstance(command, click.Group | typer.core.TyperGroup) and arguments:
        return f"{' '.join(arguments)!r} needs another word"
    try:
        command.make_context("headrace", left)
    except Exception as error:
        # Typer brings a click of its own, whose errors are of other classes than click's.
        said = error.format_message() if hasattr(error, "format_message") else repr(error)
        # `--help` is an end as well, and the files of a reader are not here.
        return "" if said == "Exit(0)" or re.search("does not exist|No such file", said) else said
    return ""
