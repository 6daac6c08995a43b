"""`headrace compare`: reports of `headrace eval --out` beside each other."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console

from deploy.commands.options import JsonOption
from deploy.evaluation_report import comparison, comparison_table, read_report


def compare(
    reports: Annotated[
        list[Path], typer.Argument(metavar="FOLDER…", help="Folders of reports; gains are over the first.")
    ],
    metric: Annotated[
        Literal["ndcg_10", "mrr_10", "recall_10", "recall_100"], typer.Option(help="What to compare by.")
    ] = "ndcg_10",
    as_json: JsonOption = False,
) -> None:
    """Show how evaluations of the same queries differ, ranking by ranking."""
    found = [read_report(folder) for folder in reports]
    if as_json:
        names = [report.name for report in found]
        rows = comparison(found, metric)
        typer.echo(json.dumps({"metric": metric, "reports": names, "rankings": rows}, indent=2))
    else:
        Console().print(comparison_table(found, metric))
