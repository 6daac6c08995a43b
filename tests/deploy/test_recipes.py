"""`headrace recipes list`."""

import json

from typer.testing import CliRunner

from deploy.commands.recipes import app
from training.datasets import sources
from training.recipes import CARDS, RECIPES


def test_every_recipe_that_can_be_trained_is_listed_with_its_source() -> None:
    result = CliRunner().invoke(app, ["list", "--json"])
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert [row["recipe"] for row in rows] == list(RECIPES)
    assert len(RECIPES) == len(CARDS)
    assert all(all(row.values()) for row in rows), "no column is empty"
    assert {row["data set"] for row in rows} <= set(sources.NAMES)


def test_the_table_names_papers() -> None:
    result = CliRunner().invoke(app, ["list"], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    assert "PinnerFormer, arXiv 2205.04507" in result.stdout
