"""A search result for people: tables that fit 80 columns."""

from collections.abc import Iterable

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from router.client_results import Item, SearchResult, Timing
from shards.diversity import PLACE, SIMILARITY

STAGES = {"merge": "merge", "pre_rank": "pre-rank", "rank": "rank"}
"""Prefix of a stage's columns to the heading of its scores."""

_MOST_COLUMNS, _MOST_FEATURES = 6, 15
"""Items and features whose contributions fit a terminal."""


def render(result: SearchResult, *, query: str, user_id: str, explain: bool) -> RenderableType:
    """Return the items and what is missing; with `explain` also scores by stage, the gate and timings."""
    parts: list[RenderableType] = [_headline(result, query, user_id), _items(result, explain)]
    if explain:
        parts += [*_contributions(result.items), _gate(result), _timings(result.timings)]
    return Group(*parts, *_coverage(result))


def _headline(result: SearchResult, query: str, user_id: str) -> Text:
    asked = f"“{query}”" if query else "browsing"
    headline = Text(asked, style="bold")
    headline.append(f" on {result.surface} for {user_id or 'an unknown visitor'}", style="not bold")
    return headline.append(f", release {result.release}", style="dim not bold")


def _items(result: SearchResult, explain: bool) -> Table:
    """Return one row per item; explained, the channels stand below the title to leave room for the scores."""
    table = Table(show_lines=explain)
    table.add_column("", justify="right", style="dim", no_wrap=True)
    table.add_column("item", overflow="fold", ratio=1)
    stages = [stage for stage in STAGES if any(f"{stage}.score" in item.scores for item in result.items)]
    if not explain:
        table.add_column("brought by", overflow="fold")
    for heading in [STAGES[stage] for stage in stages] if explain else ["score"]:
        table.add_column(heading, justify="right", no_wrap=True)
    for place, item in enumerate(result.items, start=1):
        if explain:
            table.add_row(str(place), _described(item), *(_stage_scores(item, stage) for stage in stages))
        else:
            title = item.attributes.get("title") or item.item_id
            table.add_row(str(place), title, ", ".join(item.channels), _number(item.score))
    return table


def _described(item: Item) -> Text:
    """Return the title, the id with other attributes, and the place that each channel gave the item."""
    others = [f"{name} {value}" for name, value in item.attributes.items() if name != "title" and value]
    places = [f"{channel} #{_number(item.scores.get(f'{channel}.rank'))}" for channel in item.channels]
    text = Text(item.attributes.get("title") or item.item_id)
    text.append("\n" + " · ".join([item.item_id, *others]), style="dim")
    text.append("\n" + ", ".join(places), style="cyan")
    if PLACE in item.scores:
        was, alike = item.scores[PLACE], item.scores.get(SIMILARITY)
        text.append(f"\nfor diversity from #{was:g}, similarity {_number(alike)}", style="magenta")
    return text


def _stage_scores(item: Item, stage: str) -> Text:
    """Return the stage's score and, below it, what it is made of: one line per task."""
    text = Text(_number(item.scores.get(f"{stage}.score")))
    for name, value in item.scores.items():
        prefix, _, task = name.partition(".")
        if prefix == stage and task != "score":
            text.append(f"\n{task} {_number(value)}", style="dim")
    return text


def _contributions(items: Iterable[Item]) -> list[RenderableType]:
    """Return what the ranker's features add to the scores of the first items, those that add most first."""
    told = [item.contributions for item in items if item.contributions][:_MOST_COLUMNS]
    if not told:
        return []
    table = Table(title="what features add to the rank score", title_justify="left")
    table.add_column("feature", overflow="fold", ratio=1)
    for place in range(1, len(told) + 1):
        table.add_column(f"#{place}", justify="right", no_wrap=True)
    names = {name for each in told for name in each}
    largest = {name: max(abs(each.get(name, 0.0)) for each in told) for name in names}
    for name in sorted(names, key=lambda name: (-largest[name], name))[:_MOST_FEATURES]:
        table.add_row(name, *(_signed(each.get(name)) for each in told))
    if len(names) > _MOST_FEATURES:
        table.caption = f"and {len(names) - _MOST_FEATURES} more in --json"
    return [table]


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.2g}"


def _gate(result: SearchResult) -> Text:
    gate = result.gate
    text = Text(f"Gate {'open' if gate.open else 'closed'}: {gate.reason}")
    if gate.probability is not None:
        text.append(f", probability {gate.probability:.3f}")
    if gate.threshold is not None:
        text.append(f", threshold {gate.threshold:.3f}")
    return text.append(f" (version {gate.version}, placement {result.generation})", style="dim")


def _timings(timings: Iterable[Timing]) -> Table:
    table = Table()
    table.add_column("stage", overflow="fold")
    table.add_column("model", overflow="fold", ratio=1)
    table.add_column("shard", overflow="fold")
    for heading in ("items", "ms", "compute"):
        table.add_column(heading, justify="right")
    for timing in timings:
        table.add_row(
            timing.channel or timing.stage.replace("_", "-"),
            timing.model,
            timing.shard_id,
            f"{timing.candidates:,}",
            f"{timing.total_ms:.1f}",
            f"{timing.compute_ms:.1f}",
        )
    return table


def _coverage(result: SearchResult) -> list[Text]:
    if result.complete:
        return []
    missing = [Text("Incomplete:", style="bold yellow")]
    for gap in result.gaps:
        what = gap.channel or gap.stage.replace("_", "-")
        missing.append(Text(f"  {what} ({gap.model}) {gap.reason}: {gap.detail}"))
    return missing


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
