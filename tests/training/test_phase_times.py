"""The CSV of a run's phases."""

from pathlib import Path

from training.phase_times import COLUMNS, PhaseTimes
from training.trainer import Advanced, EpochEnded, PhaseStarted


def test_every_phase_is_a_row_and_the_epochs_of_a_model_are_one(tmp_path: Path) -> None:
    heard: list[PhaseStarted | Advanced | EpochEnded] = []
    phases = PhaseTimes(tmp_path / "run" / "phases.csv", heard.append)
    events: list[PhaseStarted | Advanced | EpochEnded] = [
        PhaseStarted(phase="encoding"),
        Advanced(),
        PhaseStarted(phase="tower, epoch 1"),
        PhaseStarted(phase="tower, epoch 2"),
        PhaseStarted(phase="writing"),
    ]
    for event in events:
        phases(event)
    phases.end()
    heading, *rows = [line.split(",") for line in (tmp_path / "run" / "phases.csv").read_text().splitlines()]
    assert heard == events
    assert tuple(heading) == COLUMNS
    assert [row[0] for row in rows] == ["reading", "encoding", "tower", "writing"]
    assert all(float(seconds) >= 0 and int(mib) > 0 for _, seconds, _, mib in rows)
