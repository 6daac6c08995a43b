"""A simulation as a picture: load and memory of the shards, and what moves, over the rounds."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from shards.errors import Refused
from shards.simulation import RoundFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST, _MEAN, _BAND, _BAD = "#b5472f", "#1f5a86", "#c9d9e6", "#e0a100"


def draw(rounds: Sequence[RoundFigures], path: Path) -> None:
    """Write the picture; the file's ending says how. Raises `Refused` without matplotlib."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import MaxNLocator
    except ImportError as error:
        raise Refused("a picture needs matplotlib: pip install 'headrace[plots]'") from error
    figure = Figure(figsize=(9, 8), layout="constrained")
    load, memory, churn = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 2))
    _draw_load(load, rounds)
    _draw_memory(memory, rounds)
    _draw_churn(churn, rounds)
    churn.set_xlabel("round")
    for axis in (churn.xaxis, churn.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    for axes in (load, memory, churn):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e6e6e6")
        axes.set_axisbelow(True)
        axes.set_ylim(0, 1.06 * axes.get_ylim()[1])
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    figure.savefig(path, dpi=150)


def _draw_load(axes: "Axes", rounds: Sequence[RoundFigures]) -> None:
    x = [f.number for f in rounds]
    axes.set_title(f"Load of {len(rounds[0].shards)} shards, requests/s", loc="left")
    least = [min(s.load for s in f.shards) for f in rounds]
    axes.fill_between(x, least, [f.load_max for f in rounds], color=_BAND, label="all shards")
    axes.plot(x, [f.load_max for f in rounds], color=_MOST, marker=".", label="busiest")
    axes.plot(x, [f.load_mean for f in rounds], color=_MEAN, marker=".", label="mean")


def _draw_memory(axes: "Axes", rounds: Sequence[RoundFigures]) -> None:
    x = [f.number for f in rounds]
    axes.set_title("Memory of bundles, % of a shard's capacity", loc="left")
    shares = [[100 * s.memory_bytes / (s.capacity_bytes or 1) for s in f.shards] for f in rounds]
    axes.fill_between(x, list(map(min, shares)), list(map(max, shares)), color=_BAND, label="all shards")
    axes.plot(x, [100 * f.memory_max for f in rounds], color=_MOST, marker=".", label="fullest")
    axes.plot(x, [100 * f.memory_mean for f in rounds], color=_MEAN, marker=".", label="mean")
    axes.axhline(100, color="#666666", linestyle=":", label="capacity")


def _draw_churn(axes: "Axes", rounds: Sequence[RoundFigures]) -> None:
    x = [f.number for f in rounds]
    axes.set_title("Replicas that arrive after each round", loc="left")
    moves = [f.moves for f in rounds]
    axes.bar(x, moves, color=_MEAN, label="arrive")
    axes.bar(x, [f.deferred for f in rounds], bottom=moves, color=_BAND, label="waiting")
    lost = [f.number for f in rounds if f.unanswered]
    if lost:
        axes.plot(lost, [0.0] * len(lost), "v", color=_BAD, clip_on=False, label="requests\nunanswered")
