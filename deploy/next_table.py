"""Next items without a query as a table for people: ours, and what other libraries reach."""

from collections.abc import Mapping, Sequence

from rich.table import Table

from training.evaluation.baselines import NextBaseline
from training.evaluation.next_items import NextFigures, NextItems

KEPT, EXCLUDED = "history kept", "history excluded"
"""What is said of a ranking where it differs from what the release does."""

_TITLES = {
    "recall_5": "R@5",
    "ndcg_5": "N@5",
    "recall_10": "R@10",
    "ndcg_10": "NDCG@10",
    "recall_20": "Recall@20",
    "ndcg_20": "NDCG@20",
    "hit_rate_20": "HR@20",
    "p90_items_10": "P90 items",
}
_ONE_RELEVANT = ("recall_5", "ndcg_5", "recall_10", "ndcg_10", "p90_items_10")
_SEVERAL_RELEVANT = ("recall_20", "ndcg_20", "hit_rate_20", "p90_items_10")


def next_table(
    title: str,
    asked: Sequence[NextItems],
    figures: Mapping[str, NextFigures],
    baselines: Sequence[NextBaseline],
) -> Table:
    """Return the table of all rankings; its figures are those usual where so many items are relevant."""
    columns = _ONE_RELEVANT if all(len(user.relevant) == 1 for user in asked) else _SEVERAL_RELEVANT
    table = Table(title=title, title_justify="left")
    table.add_column("ranking", overflow="fold")
    for column in columns:
        table.add_column(_TITLES[column], justify="right", no_wrap=True)
    for ranking, found in figures.items():
        table.add_row(ranking, *(_cell(found, column) for column in columns))
    for line in baselines:
        cells = (f"{line.figures[column]:.4f}" if column in line.figures else "" for column in columns)
        table.add_row(f"other libraries: {line.ranking}", *cells, style="dim")
    return table


def _cell(found: NextFigures, column: str) -> str:
    value = getattr(found, column)
    error = getattr(found, f"{column}_error", None)
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" + ("" if error is None else f" ± {error:.4f}")
