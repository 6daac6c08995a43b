"""`headrace recipes`: what `headrace train` can train."""

import json

import typer
from rich.console import Console

from deploy.commands.options import JsonOption
from deploy.views.table import new_table
from training.recipes import CARDS

app = typer.Typer(no_args_is_help=True)


@app.callback()
def recipes() -> None:
    """Show what `headrace train` can train."""


@app.command("list")
def list_recipes(as_json: JsonOption = False) -> None:
    """Show every recipe, the published system that it is, its data set and what its authors claim."""
    rows = [
        {
            "recipe": card.recipe.name,
            "systems": ", ".join(card.systems),
            "source": card.source,
            "data set": card.recipe.dataset_name,
            "effect claimed": card.effect,
        }
        for card in CARDS
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = new_table("", *rows[0], long=("systems", "source", "effect claimed"))
    for row in rows:
        table.add_row(*row.values())
    Console().print(table, highlight=False)
