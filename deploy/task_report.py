"""What a ranker says of its tasks, as a table and as reliability curves."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Table

from shards.errors import Refused
from training.evaluation.task_figures import ProbabilityFigures, ValueFigures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Figures = ProbabilityFigures | ValueFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskReport:
    """The figures of a release's tasks on held-out queries."""

    dataset: str
    split: str
    release: str
    requests: int
    queries_are_proxies: bool
    figures: Mapping[str, Figures]

    @property
    def title(self) -> str:
        """Return what the figures are of."""
        note = "; the queries are proxies" if self.queries_are_proxies else ""
        return f"{self.dataset}, {self.split}: {self.requests:,} requests, {self.release}{note}"


def as_document(report: TaskReport) -> dict[str, object]:
    """Return the report as JSON takes it; a figure that there is not is null."""
    figures = {
        task: {name: _finite(value) for name, value in asdict(one).items()}
        for task, one in report.figures.items()
    }
    return {**asdict(report), "figures": figures}


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def render(report: TaskReport) -> Table:
    """Return the table: probabilities by AUC and calibration, numbers by their errors."""
    table = Table(title=report.title, title_justify="left")
    table.add_column("task", no_wrap=True)
    for name in ("examples", "predicted", "observed", "AUC", "GAUC", "log-loss", "ECE", "MAE", "MAE of mean"):
        table.add_column(name, justify="right", overflow="fold")
    for task, one in report.figures.items():
        start = [task, f"{one.examples:,}", f"{one.predicted:.4f}", f"{one.observed:.4f}"]
        if isinstance(one, ProbabilityFigures):
            cells = [f"{one.auc:.3f}", f"{one.gauc:.3f}", f"{one.log_loss:.4f}", f"{one.ece:.4f}", "", ""]
        else:
            errors = (one.mean_absolute_error, one.absolute_error_of_mean)
            cells = ["", "", "", "", *(f"{error:.3f}" for error in errors)]
        table.add_row(*start, *cells)
    return table


def draw(report: TaskReport, path: Path) -> None:
    """Write the reliability curves; the file's ending says how. Raises `Refused` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise Refused("a picture needs matplotlib: pip install 'headrace[plots]'") from error
    probabilities = {name: one for name, one in report.figures.items() if isinstance(one, ProbabilityFigures)}
    picture = Figure(figsize=(4 * max(len(probabilities), 1), 4), layout="constrained")
    every = picture.subplots(1, max(len(probabilities), 1), squeeze=False)[0]
    for axes, (name, one) in zip(every, probabilities.items(), strict=False):
        _draw(axes, name, one)
    picture.suptitle(report.title, x=0.01, ha="left")
    picture.savefig(path, dpi=150)


def _draw(axes: "Axes", name: str, one: ProbabilityFigures) -> None:
    predicted = [found.predicted for found in one.curve]
    observed = [found.observed for found in one.curve]
    most = max(*predicted, *observed, 1e-6)
    axes.plot([0, most], [0, most], color="#666666", linestyle=":", label="calibrated")
    axes.plot(predicted, observed, color="#1f5a86", marker="o", label="served")
    axes.set_title(f"{name}: ECE {one.ece:.4f}", loc="left")
    axes.set_xlabel("predicted")
    axes.set_ylabel("observed")
    axes.legend(loc="upper left", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
