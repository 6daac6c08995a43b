"""What a page shows of an answer: who brought an item, how it was scored, what was left of how many."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from deploy.console.bars import Part, centred, largest, nested, signed
from deploy.search_view import STAGES
from router.client_results import Item, SearchResult, StageList, Timing
from shards.diversity import PLACE, SIMILARITY

KINDS = {"retrieval": "retrieval", "pre_ranking": "pre-ranking", "ranking": "ranking", "merge": "other"}
"""Colours of the stages."""

_MOST_FEATURES = 12
_MOST_CANDIDATES = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A name, a figure and its bar."""

    name: str
    value: float
    bar: Markup
    kind: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemView:
    """An item of the page and why it stands there."""

    item: Item
    title: str
    others: Sequence[tuple[str, str]]
    channels: Sequence[tuple[str, float | None, float | None]]
    """Name, place and score."""
    stages: Sequence[tuple[str, float]]
    tasks: Sequence[Row]
    contributions: Sequence[Row]
    left_out: int
    """Features that contribute less than those shown."""
    diversity: tuple[float, float | None] | None
    """The place before, and the similarity to the most alike item above."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTable:
    """The first candidates of a stage with what it says of them; NaN reads None."""

    name: str
    kind: str
    count: int
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[float | None]]]


def item_views(result: SearchResult) -> list[ItemView]:
    """Return the items of the page."""
    return [_item_view(item) for item in result.items]


def _item_view(item: Item) -> ItemView:
    known = sorted(item.contributions.items(), key=lambda each: -abs(each[1]))
    return ItemView(
        item=item,
        title=item.attributes.get("title") or item.item_id,
        others=[(name, value) for name, value in item.attributes.items() if name != "title" and value],
        channels=[
            (name, item.scores.get(f"{name}.rank"), item.scores.get(f"{name}.score"))
            for name in item.channels
        ],
        stages=[
            (heading, item.scores[f"{stage}.score"])
            for stage, heading in STAGES.items()
            if f"{stage}.score" in item.scores
        ],
        tasks=_tasks(item.scores),
        contributions=_contributions(known[:_MOST_FEATURES]),
        left_out=max(0, len(known) - _MOST_FEATURES),
        diversity=(item.scores[PLACE], item.scores.get(SIMILARITY)) if PLACE in item.scores else None,
    )


def _tasks(scores: Mapping[str, float]) -> list[Row]:
    """Return what the ranker predicts of each task, a probability where it is one."""
    tasks = {name.removeprefix("rank."): value for name, value in scores.items() if name.startswith("rank.")}
    tasks.pop("score", None)
    most = max(1.0, largest(tasks.values()))
    return [
        Row(name=name, value=value, bar=nested(Part(share=value / most, kind="ranking")))
        for name, value in tasks.items()
        if not math.isnan(value)
    ]


def _contributions(known: Iterable[tuple[str, float]]) -> list[Row]:
    shown = list(known)
    most = largest(abs(value) for _, value in shown)
    return [Row(name=name, value=value, bar=signed(value / most)) for name, value in shown]


def funnel(result: SearchResult) -> list[Row]:
    """Return how many candidates each step left, the bars on a logarithmic scale."""
    seen = result.explanation
    if seen is None:
        return []
    steps = [(name, "retrieval", len(found.item_ids)) for name, found in seen.channels.items()]
    later = (
        ("merged", "other", seen.merged),
        ("pre-ranked", "pre-ranking", seen.pre_ranked),
        ("ranked", "ranking", seen.ranked),
    )
    steps += [(name, kind, len(found.item_ids)) for name, kind, found in later if found.item_ids]
    steps.append(("page", "accent", len(result.items)))
    most = math.log1p(max(count for _, _, count in steps)) or 1.0
    return [
        Row(name=name, value=count, kind=kind, bar=centred(math.log1p(count) / most, kind))
        for name, kind, count in steps
    ]


def time_rows(timings: Sequence[Timing]) -> list[Row]:
    """Return the time of each call, and in its bar the part that the shard computed."""
    most = largest(timing.total_ms for timing in timings)
    return [
        Row(
            name=timing.channel or timing.stage.replace("_", "-"),
            value=timing.total_ms,
            kind=KINDS.get(timing.stage, "other"),
            detail=f"{timing.model} on {timing.shard_id}, {timing.compute_ms:.1f} ms computing",
            bar=nested(
                Part(share=timing.total_ms / most, kind="soft"),
                Part(share=timing.compute_ms / most, kind=KINDS.get(timing.stage, "other")),
            ),
        )
        for timing in timings
    ]


def stage_tables(result: SearchResult) -> list[StageTable]:
    """Return the candidates of each stage, with the columns that are its own."""
    seen = result.explanation
    if seen is None:
        return []
    tables = [_table(name, "retrieval", found, f"{name}.") for name, found in seen.channels.items()]
    tables += [
        _table("merged", "other", seen.merged, "merge."),
        _table("pre-ranked", "pre-ranking", seen.pre_ranked, "pre_rank."),
        _table("ranked", "ranking", seen.ranked, "rank."),
        _table("diversified", "accent", seen.diversified, "diversity."),
    ]
    return [table for table in tables if table.count]


def _table(name: str, kind: str, found: StageList, prefix: str) -> StageTable:
    columns = {column: values for column, values in found.columns.items() if column.startswith(prefix)}
    rows = [
        (item_id, [None if math.isnan(values[row]) else values[row] for values in columns.values()])
        for row, item_id in enumerate(found.item_ids[:_MOST_CANDIDATES])
    ]
    return StageTable(
        name=name,
        kind=kind,
        count=len(found.item_ids),
        columns=[column.removeprefix(prefix) for column in columns],
        rows=rows,
    )
