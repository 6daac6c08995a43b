"""The report of an evaluation as a folder, and several of them beside each other.

A folder holds eval.json (what `headrace eval --json` prints, and the rank of every query's item), eval.txt
(the table) and eval.png (recall by depth).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from deploy.evaluation_table import Evaluation, as_document, render
from deploy.recall_picture import draw
from shards.errors import FieldViolation, InvalidInput
from training.evaluation.report import Ranks, gain

METRICS = {"recall_10": "R@10", "recall_100": "R@100", "mrr_10": "MRR@10", "ndcg_10": "NDCG@10"}
_JSON, _TEXT, _PICTURE = "eval.json", "eval.txt", "eval.png"
_WIDTH = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An evaluation read back: what it is called, its release, and its ranks."""

    name: str
    release: str
    ranks: Ranks


def write_report(folder: Path, evaluation: Evaluation) -> None:
    """Write the report into the folder, which is made where there is none.

    Raises `Refused` without matplotlib, and then writes nothing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draw(folder / _PICTURE, f"{evaluation.dataset}, {evaluation.split}", evaluation.offline)
    console = Console(record=True, width=_WIDTH, file=(folder / _TEXT).open("w", encoding="utf-8"))
    with console.file:
        console.print(render(evaluation))
    ranks = evaluation.offline
    document = as_document(evaluation) | {
        "query_ids": list(ranks.query_ids),
        "query_has_history": ranks.with_history.tolist(),
        "ranks": {name: held.tolist() for name, held in ranks.by_ranking.items()},
    }
    (folder / _JSON).write_text(json.dumps(document) + "\n", encoding="utf-8")


def read_report(folder: Path) -> Report:
    """Return the report in a folder. Raises `InvalidInput` naming the file where it is none."""
    path = folder / _JSON
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        ranks = Ranks(
            query_ids=tuple(document["query_ids"]),
            with_history=np.array(document["query_has_history"], np.bool_),
            by_ranking={name: np.array(held, np.int64) for name, held in document["ranks"].items()},
        )
        return Report(name=folder.name, release=str(document["release"]), ranks=ranks)
    except OSError as error:
        raise InvalidInput(FieldViolation(str(path), f"cannot be read: {error.strerror}")) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInput(FieldViolation(str(path), f"is no report of headrace eval: {error!r}")) from error


def comparison(reports: Sequence[Report], metric: str) -> dict[str, list[dict[str, float]]]:
    """Return by ranking what `training.evaluation.report.Gain` says of each report, over the first.

    Raises `InvalidInput` where they are not of the same queries, or share no ranking.
    """
    first = reports[0]
    for other in reports[1:]:
        if other.ranks.query_ids != first.ranks.query_ids:
            problem = f"is not of the same queries as {first.name}: split, limit or data set differ"
            raise InvalidInput(FieldViolation(other.name, problem))
    shared = [name for name in first.ranks.by_ranking if all(name in r.ranks.by_ranking for r in reports)]
    if not shared:
        raise InvalidInput(FieldViolation("reports", "have no ranking in common"))
    return {
        name: [
            asdict(gain(first.ranks.by_ranking[name], report.ranks.by_ranking[name], metric))
            for report in reports
        ]
        for name in shared
    }


def comparison_table(reports: Sequence[Report], metric: str) -> RenderableType:
    """Return the comparison for people. Raises what `comparison` raises."""
    found = comparison(reports, metric)
    table = Table(
        title=f"{METRICS[metric]}: {len(reports[0].ranks.query_ids):,} queries", title_justify="left"
    )
    table.add_column("ranking", overflow="fold")
    for report in reports:
        table.add_column(report.name, justify="right")
    for ranking, cells in found.items():
        first, *others = cells
        table.add_row(ranking, f"{first['mean']:.4f}", *(_cell(cell) for cell in others))
    releases = [Text(f"{report.name}: release {report.release}") for report in reports]
    note = Text(f"In brackets: gain over {reports[0].name}, ± 95 % of the differences by query.")
    return Group(table, *releases, note)


def _cell(cell: Mapping[str, float]) -> str:
    return f"{cell['mean']:.4f} ({cell['gain']:+.4f} ± {cell['gain_error']:.4f})"
