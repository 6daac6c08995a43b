"""Two workers of a real Ray train a recipe together, and come to what one process comes to."""

import contextlib
import csv
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from deploy.processes import descendants
from deploy.training import TrainingOptions, train_release
from deploy.workspace import Workspace
from shards.bundle import open_bundle
from shards.golden import GOLDEN_FILE, read_golden
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import RECIPE
from training.overrides import with_overrides
from training.share import Share
from training.trainer import Advanced, EpochEnded, PhaseStarted, ignore

# Dropout draws differ from worker to worker; all else does not.
SMALL = with_overrides(
    replace(RECIPE, channels=RECIPE.channels[:2]).embedding_alone(),
    ["two_tower.model.dropout=0", "two_tower.fit.epochs=2"],
)


def losses(workspace: Workspace) -> list[tuple[str, float, float]]:
    """Return the epoch, the loss and the metric of each line of the run's CSV."""
    (path,) = workspace.training_dir.glob("*/metrics.csv")
    with path.open() as file:
        return [(row["epoch"], float(row["loss"]), float(row["metric"])) for row in csv.DictReader(file)]


def training_workers() -> list[int]:
    """Return the processes of this test's Ray that train."""
    return [each.pid for each in descendants(os.getpid()) if b"RayTrainWorker" in cmdline(each.pid)]


def cmdline(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_two_workers_one_of_them_killed_learn_what_one_process_learns(tmp_path: Path) -> None:
    heard: list[EpochEnded] = []
    killed: list[int] = []

    def kill_one_after_an_epoch(event: PhaseStarted | Advanced | EpochEnded) -> None:
        if not isinstance(event, EpochEnded):
            return
        heard.append(event)
        if not killed:
            killed.append(training_workers()[-1])
            os.kill(killed[0], signal.SIGKILL)

    alone, together = Workspace(tmp_path / "alone"), Workspace(tmp_path / "together")
    expected = train_release(SMALL, shop_dataset(), alone, TrainingOptions(), ignore)
    trained = train_release(
        SMALL, shop_dataset(), together, TrainingOptions(workers=2), kill_one_after_an_epoch
    )
    assert trained.release == expected.release
    assert trained.figures == pytest.approx(expected.figures, abs=1e-2)
    np.testing.assert_allclose(
        np.array(losses(together), float), np.array(losses(alone), float), rtol=1e-3, atol=1e-2
    )
    firsts = [event for event in heard if event.epoch == 1]
    assert len(firsts) == 3, "before the worker was killed, again after it, and of the late model"
    (model,) = trained.release.models()
    ours, theirs = (
        read_golden(open_bundle(w.models_dir / model.model / model.version).file(GOLDEN_FILE))
        for w in (together, alone)
    )
    assert ours.contexts == theirs.contexts
    for left, right in zip(ours.scores, theirs.scores, strict=True):
        np.testing.assert_allclose(left["score"], right["score"], rtol=1e-3, atol=1e-3)


def test_parts_make_up_a_batch() -> None:
    for size, workers in ((10, 3), (7, 2), (4, 4)):
        shares = [Share(rank, workers) for rank in range(workers)]
        taken = [n for share in shares for n in range(size)[share.part(size)]]
        assert taken == list(range(size))
        assert sum(share.weight(size) for share in shares) == pytest.approx(workers)


def test_a_batch_too_small_to_divide_is_computed_by_all() -> None:
    share = Share(2, 4)
    assert (share.part(3), share.weight(3)) == (slice(0, 3), 1.0)
