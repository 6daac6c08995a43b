"""The CSV of a training run."""

from pathlib import Path

from training.metrics_file import metrics_file
from training.trainer import Advanced, EpochEnded, PhaseStarted, ignore


def ended(model: str, epoch: int, loss: float = 0.5) -> EpochEnded:
    return EpochEnded(model=model, epoch=epoch, loss=loss, metric=float("nan"), seconds=2.0)


def test_every_epoch_is_a_row_and_the_other_observer_hears_all(tmp_path: Path) -> None:
    heard: list[PhaseStarted | Advanced | EpochEnded] = []
    observe = metrics_file(tmp_path / "run" / "metrics.csv", goes_on=False, beside=heard.append)
    events: list[PhaseStarted | Advanced | EpochEnded] = [
        PhaseStarted(phase="x"),
        ended("a", 1),
        Advanced(),
        ended("b", 1, 0.25),
    ]
    for event in events:
        observe(event)
    assert heard == events
    assert (tmp_path / "run" / "metrics.csv").read_text().splitlines() == [
        "model,epoch,loss,metric,seconds",
        "a,1,0.5,nan,2.000",
        "b,1,0.25,nan,2.000",
    ]


def test_a_run_that_goes_on_replaces_epochs_that_it_runs_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"

    def record(*events: EpochEnded, goes_on: bool) -> list[str]:
        observe = metrics_file(path, goes_on=goes_on, beside=ignore)
        for event in events:
            observe(event)
        return [row.rsplit(",", 2)[0] for row in path.read_text().splitlines()[1:]]

    record(ended("a", 1), ended("b", 1), ended("b", 2), goes_on=False)
    assert record(ended("b", 2, 7), ended("b", 3), goes_on=True) == ["a,1,0.5", "b,1,0.5", "b,2,7", "b,3,0.5"]
    assert record(ended("c", 1), goes_on=False) == ["c,1,0.5"]
