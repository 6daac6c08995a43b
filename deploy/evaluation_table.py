"""One evaluation for people and for programs: a table that fits 80 columns, and JSON with everything."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isnan

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from training.evaluation.baselines import Baseline
from training.evaluation.report import Difference, Figures, Ranks, Row, as_json, compare, summarise

GROUPS = {
    "overall": "all users",
    "with_history": "users with a history",
    "without_history": "users without one",
}
_PUBLISHED = "Published: other libraries on all test queries, from the README of the data directory."
_PROXIES = "The queries are proxies made from what users then took, not a search log."


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """All that one run of `headrace eval` found; `online` is None when the cluster was not asked.

    `labels` say what a ranking is where its name alone does not: "embedding (two-tower)".
    """

    dataset: str
    split: str
    release: str
    queries_are_proxies: bool
    offline: Ranks
    online: Ranks | None = None
    degraded: tuple[str, ...] = ()
    disagreements: tuple[str, ...] = ()
    baselines: tuple[Baseline, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)

    def differences(self) -> tuple[Difference, ...]:
        """Return how online and offline differ, ranking by ranking."""
        return compare(self.offline, self.online) if self.online else ()


def render(evaluation: Evaluation) -> RenderableType:
    """Return the table, what it does not say by itself, and the verdict."""
    queries = len(evaluation.offline.query_ids)
    table = Table(
        title=f"{evaluation.dataset}, {evaluation.split}: {queries:,} queries", title_justify="left"
    )
    table.add_column("ranking", overflow="fold")
    for name in ("R@10", "R@100", "MRR@10", "NDCG@10"):
        table.add_column(name, justify="right", no_wrap=True)
    offline = summarise(evaluation.offline)
    online = summarise(evaluation.online) if evaluation.online else ()
    for group, label in GROUPS.items():
        _add_group(table, group, label, _named(offline, evaluation.labels), _named(online, evaluation.labels))
    if evaluation.baselines:
        _add_baselines(table, evaluation.baselines)
    return Group(table, *_notes(evaluation, offline))


def as_document(evaluation: Evaluation) -> dict[str, object]:
    """Return everything as plain values for JSON; `agree` is null when the cluster was not asked."""
    online = evaluation.online
    return {
        "dataset": evaluation.dataset,
        "split": evaluation.split,
        "release": evaluation.release,
        "queries": len(evaluation.offline.query_ids),
        "queries_are_proxies": evaluation.queries_are_proxies,
        "offline": as_json(summarise(evaluation.offline)),
        "online": as_json(summarise(online)) if online else None,
        "differences": [asdict(difference) for difference in evaluation.differences()],
        "degraded": list(evaluation.degraded),
        "disagreements": list(evaluation.disagreements),
        "agree": not evaluation.disagreements if online else None,
        "labels": dict(evaluation.labels),
        "baselines": [asdict(baseline) for baseline in evaluation.baselines],
    }


def _add_group(table: Table, group: str, label: str, offline: Sequence[Row], online: Sequence[Row]) -> None:
    size = getattr(offline[0], group).queries if offline else 0
    table.add_row(Text(f"{label}: {size:,}", style="bold"))
    answered = {row.ranking: row for row in online}
    for row in offline:
        table.add_row(row.ranking, *_cells(getattr(row, group)))
        if row.ranking in answered:
            cells = _cells(getattr(answered[row.ranking], group))
            table.add_row(Text("  online", style="dim"), *(Text(cell, style="dim") for cell in cells))
    table.add_section()


def _named(rows: Sequence[Row], labels: Mapping[str, str]) -> list[Row]:
    return [replace(row, ranking=labels.get(row.ranking, row.ranking)) for row in rows]


def _add_baselines(table: Table, baselines: Sequence[Baseline]) -> None:
    table.add_row(Text("published, all test queries", style="bold"))
    for line in baselines:
        figures = (line.recall_10, line.recall_100, line.mrr_10, line.ndcg_10)
        table.add_row(Text(line.ranking, style="italic"), *(f"{value:.3f}" for value in figures))


def _cells(figures: Figures) -> tuple[str, ...]:
    values = (figures.recall_10, figures.recall_100, figures.mrr_10, figures.ndcg_10)
    return tuple("-" if isnan(value) else f"{value:.3f}" for value in values)


def _notes(evaluation: Evaluation, offline: Sequence[Row]) -> list[Text]:
    notes = []
    if evaluation.queries_are_proxies:
        notes.append(Text(_PROXIES))
    error = max((row.overall.ndcg_10_error for row in offline), default=0.0)
    notes.append(Text(f"NDCG@10 over all users is ± {error:.3f} at 95 %. Release {evaluation.release}."))
    if evaluation.baselines:
        notes.append(Text(_PUBLISHED))
    if evaluation.online:
        notes += _verdict(evaluation)
    return notes


def _verdict(evaluation: Evaluation) -> list[Text]:
    if evaluation.disagreements:
        found = [Text("Online and offline DISAGREE:", style="bold red")]
        return [*found, *(Text(f"  {sentence}") for sentence in evaluation.disagreements)]
    moved = max((difference.moved for difference in evaluation.differences()), default=0.0)
    verdict = f"Online and offline agree: in no ranking more than {moved:.2%} of the queries moved."
    return [Text(verdict, style="bold green")]
