"""Training that is broken off goes on to the very same parameters."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from deploy.settings import PROJECT_ROOT
from shards.errors import CorruptRecord
from tests.training.killed_training import STEPS, Event, train
from training.checkpoints import Checkpoint, Checkpoints, Progress
from training.trainer import Advanced, EpochEnded, Fitted, autocast, ignore


class Broken(Exception):
    """Stands for whatever ends a run."""


def broken_after(steps: int, folder: Path) -> None:
    left = steps

    def observe(event: Event) -> None:
        nonlocal left
        if isinstance(event, Advanced):
            left -= event.steps
            if left < 0:
                raise Broken

    with pytest.raises(Broken):
        train(Checkpoints(folder=folder, every_s=0), observe)


def assert_equal(left: tuple[dict[str, Tensor], Fitted], right: tuple[dict[str, Tensor], Fitted]) -> None:
    assert left[1] == right[1]
    assert all(torch.equal(left[0][name], right[0][name]) for name in right[0])


def test_a_run_broken_off_after_any_step_ends_bit_equal(tmp_path: Path) -> None:
    whole = train(Checkpoints(), ignore)
    assert whole[1].best_epoch < whole[1].epochs, "the best epoch's parameters have to be remembered"
    for steps in range(1, STEPS):
        folder = tmp_path / str(steps)
        broken_after(steps, folder)
        assert_equal(train(Checkpoints(folder=folder), ignore), whole)


def test_a_process_killed_at_a_step_goes_on_and_ends_bit_equal(tmp_path: Path) -> None:
    arguments = ["-m", "tests.training.killed_training", str(tmp_path / "kept"), str(tmp_path / "out.npz")]
    with subprocess.Popen(
        [sys.executable, *arguments],
        cwd=PROJECT_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin
        assert process.stdout
        for _ in range(STEPS // 2 + 1):
            assert process.stdout.readline() == "step\n"
            process.stdin.write("on\n")
            process.stdin.flush()
        process.kill()
        process.wait()
    assert not (tmp_path / "out.npz").exists()
    taken = subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT_ROOT,
        input="on\n" * STEPS,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.count("step\n")
    assert 0 < taken < STEPS, "it begins where the other was killed"
    whole, _ = train(Checkpoints(), ignore)
    with np.load(tmp_path / "out.npz") as resumed:
        assert sorted(resumed.files) == sorted(whole)
        assert all(np.array_equal(resumed[name], whole[name].numpy()) for name in whole)


def test_a_fit_that_was_done_is_not_done_again(tmp_path: Path) -> None:
    first = train(Checkpoints(folder=tmp_path), ignore)
    heard: list[Event] = []
    assert_equal(train(Checkpoints(folder=tmp_path), heard.append), first)
    assert not any(isinstance(event, EpochEnded) for event in heard)


def test_each_fit_of_a_run_has_a_file_and_they_can_be_cleared(tmp_path: Path) -> None:
    checkpoints = Checkpoints(folder=tmp_path)
    generator = torch.Generator()
    paths = [checkpoints.next(name, generator).path for name in ("two_tower", "gate before", "two_tower")]
    assert [path.name for path in paths if path] == [
        "01-two_tower.npz",
        "02-gate-before.npz",
        "03-two_tower.npz",
    ]
    train(checkpoints, ignore)
    assert list(tmp_path.iterdir()) == [tmp_path / "04-line.npz"]
    checkpoints.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    checkpoint = Checkpoint(path=tmp_path / "line.npz")
    models = [nn.Linear(width, 1) for width in (2, 3)]
    optimizers = [torch.optim.AdamW(model.parameters()) for model in models]
    checkpoint.save(models[0], optimizers[0], Progress())
    assert checkpoint.load(models[0], optimizers[0]) == Progress()
    with pytest.raises(CorruptRecord, match=r"line\.npz.*no checkpoint of this model"):
        checkpoint.load(models[1], optimizers[1])
    assert checkpoint.path
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:100])
    with pytest.raises(CorruptRecord, match=r"line\.npz"):
        checkpoint.load(models[0], optimizers[0])


def test_precision_is_mixed_on_a_gpu_alone() -> None:
    model = nn.Linear(2, 1)
    with autocast(model, "bfloat16"):
        assert model(torch.ones(1, 2)).dtype == torch.float32
    if torch.cuda.is_available():
        with autocast(model.cuda(), "bfloat16"):
            assert model(torch.ones(1, 2, device="cuda")).dtype == torch.bfloat16
