"""What training says of every epoch, as rows of a CSV file."""

import csv
from collections.abc import Sequence
from pathlib import Path

from training.trainer import Advanced, EpochEnded, Observer, PhaseStarted

COLUMNS = ("model", "epoch", "loss", "metric", "seconds")


def metrics_file(path: Path, *, goes_on: bool, beside: Observer) -> Observer:
    """Return an observer that writes a row for each epoch as it ends, and tells `beside` everything.

    Where the run `goes_on`, the file's rows stay, but for those of epochs that are run again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kept = _rows(path) if goes_on else []

    def observe(event: PhaseStarted | Advanced | EpochEnded) -> None:
        beside(event)
        if isinstance(event, EpochEnded):
            nonlocal kept
            while kept and kept[-1][0] == event.model and int(kept[-1][1]) >= event.epoch:
                kept.pop()
            row = [event.model, str(event.epoch), f"{event.loss:.6g}", f"{event.metric:.6g}"]
            kept = [*kept, [*row, f"{event.seconds:.3f}"]]
            _write(path, kept)

    _write(path, kept)
    return observe


def _rows(path: Path) -> list[list[str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [row for row in csv.reader(file) if len(row) == len(COLUMNS)][1:]


def _write(path: Path, rows: Sequence[Sequence[str]]) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    partial.replace(path)
