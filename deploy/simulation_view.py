"""A simulation for people, as a table, and for scripts, as JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from rich import box
from rich.table import Table

from shards.simulation import RoundFigures

_ROWS = 24
"""Rounds that are shown; of more, a regular choice and the last."""


def simulation_table(rounds: Sequence[RoundFigures]) -> Table:
    """Return a table with one row a round and the sums below."""
    table = Table(
        title="Simulation", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), show_footer=True
    )
    sums = _sums(rounds)
    for heading, footer in (
        ("round", "all"),
        ("busiest", ""),
        ("mean", ""),
        ("ratio", f"{sums['load_ratio_worst']:.2f}"),
        ("fullest", f"{sums['memory_max']:.0%}"),
        ("mean", ""),
        ("moves", f"{sums['moves']:,}"),
        ("MB", f"{sums['moved_bytes'] / 2**20:,.0f}"),
        ("drop", f"{sums['drops']:,}"),
        ("wait", ""),
        ("missed", f"{sums['unanswered']:,.0f}"),
    ):
        table.add_column(heading, footer, justify="right", no_wrap=True)
    step = max(1, -(-len(rounds) // _ROWS))
    for figures in (f for i, f in enumerate(rounds) if i % step == 0 or i == len(rounds) - 1):
        table.add_row(
            str(figures.number),
            f"{figures.load_max:,.1f}",
            f"{figures.load_mean:,.1f}",
            f"{_ratio(figures):.2f}",
            f"{figures.memory_max:.0%}",
            f"{figures.memory_mean:.0%}",
            f"{figures.moves:,}",
            f"{figures.moved_bytes / 2**20:,.0f}",
            f"{figures.drops:,}",
            f"{figures.deferred:,}",
            f"{figures.unanswered:,.0f}",
        )
    table.caption = "busiest in requests/s, fullest in % of its memory; missed: requests without a replica"
    table.caption_justify = "left"
    return table


def simulation_json(rounds: Sequence[RoundFigures]) -> str:
    """Return every figure of every round and of every shard in it, and the sums."""
    told = [
        {
            **asdict(figures),
            "load_max": figures.load_max,
            "load_mean": figures.load_mean,
            "memory_max": figures.memory_max,
            "memory_mean": figures.memory_mean,
        }
        for figures in rounds
    ]
    return json.dumps({"rounds": told, "total": _sums(rounds)}, indent=2)


def _sums(rounds: Sequence[RoundFigures]) -> dict[str, float]:
    return {
        "load_ratio_worst": max((_ratio(f) for f in rounds), default=0.0),
        "memory_max": max((f.memory_max for f in rounds), default=0.0),
        "moves": sum(f.moves for f in rounds),
        "moved_bytes": sum(f.moved_bytes for f in rounds),
        "drops": sum(f.drops for f in rounds),
        "requests": sum(f.requests for f in rounds),
        "unanswered": sum(f.unanswered for f in rounds),
    }


def _ratio(figures: RoundFigures) -> float:
    return figures.load_max / figures.load_mean if figures.load_mean else 0.0
