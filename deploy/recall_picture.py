"""Recall by depth as a picture: a line for each ranking of an evaluation."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shards.errors import Refused
from training.evaluation.report import DEPTH, DIVERSIFIED, HYBRID, PRE_RANKED, RANKED, Ranks, recall_by_depth

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CASCADE = {HYBRID: "#8fb3d1", PRE_RANKED: "#3f7ba8", RANKED: "#12405f", DIVERSIFIED: "#c76b98"}
_CHANNELS = (
    "#b5472f",
    "#e0a100",
    "#4f8a4b",
    "#8a5a9e",
    "#7a7a7a",
    "#2a9d8f",
    "#c77d9b",
    "#a0813c",
    "#444444",
)


def draw(path: Path, title: str, ranks: Ranks) -> None:
    """Write the picture; the file's ending says how. Raises `Refused` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Refused("a picture needs matplotlib: pip install 'headrace[plots]'") from error
    picture = Figure(figsize=(9, 5), layout="constrained")
    axes = picture.subplots()
    colours = iter(_CHANNELS * (1 + len(ranks.by_ranking) // len(_CHANNELS)))
    for name, held in ranks.by_ranking.items():
        cascade = name in _CASCADE
        axes.plot(
            np.arange(1, DEPTH + 1),
            recall_by_depth(held),
            color=_CASCADE[name] if cascade else next(colours),
            linewidth=2.2 if cascade else 1.1,
            linestyle="-" if cascade else "--",
            label=name,
        )
    _dress(axes)
    picture.legend(loc="outside right upper", frameon=False)
    picture.suptitle(f"{title}: {len(ranks.query_ids):,} queries", x=0.01, ha="left")
    picture.savefig(path, dpi=150)


def _dress(axes: "Axes") -> None:
    axes.set_xscale("log")
    axes.set_xticks([1, 2, 5, 10, 20, 50, 100], labels=["1", "2", "5", "10", "20", "50", "100"])
    axes.set_xlim(1, DEPTH)
    axes.set_ylim(0, 1)
    axes.set_xlabel("depth")
    axes.set_title("queries whose item is found to this depth", loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
