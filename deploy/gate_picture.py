"""The gate's report as a picture: trigger rate against recall of the candidates and quality of the page."""

from pathlib import Path
from typing import TYPE_CHECKING

from deploy.gate_report import AFTER, BEFORE, RULES, TITLES, GateReport
from shards.errors import Refused
from training.evaluation.gate_curve import FIGURES, chance_band

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOURS = {BEFORE: "#1f5a86", AFTER: "#b5472f"}
_CHANCE, _BAND, _RULES = "#666666", "#e2e2e2", "#e0a100"


def draw(report: GateReport, path: Path) -> None:
    """Write the picture; the file's ending says how. Raises `Refused` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Refused("a picture needs matplotlib: pip install 'headrace[plots]'") from error
    picture = Figure(figsize=(11, 4.6), layout="constrained")
    both = picture.subplots(1, len(FIGURES))
    for axes, figure in zip(both, FIGURES, strict=True):
        _draw(axes, report, figure)
    both[-1].legend(loc="lower right", frameon=False)
    picture.suptitle(
        f"{report.dataset}, {report.split}: {report.outcomes.queries:,} queries", x=0.01, ha="left"
    )
    picture.savefig(path, dpi=150)


def _draw(axes: "Axes", report: GateReport, figure: str) -> None:
    chance = report.policy("random").points
    rates = [100 * point.rate for point in chance]
    line = [point.figures[figure] for point in chance]
    bands = [chance_band(report.outcomes, figure, point.rate) for point in chance]
    low = [value - band for value, band in zip(line, bands, strict=True)]
    high = [value + band for value, band in zip(line, bands, strict=True)]
    axes.fill_between(rates, low, high, color=_BAND, label="random, 95 % of choices")
    axes.plot(rates, line, color=_CHANCE, linestyle=":", label="random, mean")
    for name, colour in _COLOURS.items():
        points = report.policy(name).points
        xs, ys = [100 * p.rate for p in points], [p.figures[figure] for p in points]
        axes.plot(xs, ys, color=colour, marker=".", label=name)
    for name, colour, marker in (("never", "black", "v"), ("always", "black", "^"), (RULES, _RULES, "D")):
        point = report.policy(name).points[0]
        axes.plot(100 * point.rate, point.figures[figure], marker, color=colour, label=name, zorder=3)
    axes.set_title(TITLES[figure], loc="left")
    axes.set_xlabel("searches that trigger embedding retrieval, %")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e6e6e6")
    axes.set_axisbelow(True)
