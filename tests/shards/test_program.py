import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deploy.settings import PROJECT_ROOT
from shards.bundle import open_bundle
from shards.program import ProgramReader, prepare_program
from shards.program_process import ProgramProcess
from shards.release import ModelVersion
from shards.servable import open_servable
from shards.stages import Retriever
from tests.shards.bundles import RELEASE, VERSION, all_items, contexts

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def process() -> Iterator[ProgramProcess]:
    process = ProgramProcess()
    yield process
    process.close()


@pytest.fixture(params=["here", "process"])
def read_program(request: pytest.FixtureRequest, process: ProgramProcess) -> ProgramReader:
    return prepare_program if request.param == "here" else process.read


class Odd(nn.Module):
    """Weights that share memory, a transposed one, a constant, a branch, and numbers made on the way."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Parameter(torch.randn(6, 4))
        self.right = nn.Parameter(self.left.detach()[2:5].t())
        self.register_buffer("scale", torch.tensor(1.5, dtype=torch.float64))
        self.nothing = nn.Parameter(torch.empty(0, 4))

    def forward(self, value: Tensor) -> tuple[Tensor, Tensor]:
        hidden = (value @ self.left.t())[:, :4] + torch.arange(4, device=value.device)
        branch = torch.cond(hidden.sum() > 0, lambda x: x.sin() * 2, lambda x: x.cos() - 1, (hidden,))
        return torch.cat([branch @ self.right, value[:, :3]]) * self.scale, self.nothing.sum()


def save(path: Path, *args: Tensor, **kwargs: Tensor) -> Path:
    torch.manual_seed(5)
    with torch.no_grad():
        torch.export.save(torch.export.export(Odd().eval(), args, kwargs), path)
    return path


def run_of(path: Path, read_program: ProgramReader, **inputs: Tensor) -> tuple[Tensor, ...]:
    with torch.inference_mode():
        outputs: tuple[Tensor, ...] = read_program(path, "cpu").bind(CPU)(**inputs)
    return outputs


def check_same_bits(got: Any, want: Any) -> None:
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype
        assert one.numpy().tobytes() == other.detach().numpy().tobytes()


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("keyword", [False, True])
def test_a_program_computes_what_torch_computes(
    read_program: ProgramReader, tmp_path: Path, sign: int, keyword: bool
) -> None:
    value = torch.rand(3, 4) * 50 * sign
    args, kwargs = ((), {"value": value}) if keyword else ((value,), {})
    path = save(tmp_path / "odd.pt2", *args, **kwargs)
    with torch.inference_mode():
        wanted = torch.export.load(path).module()(*args, **kwargs)
    check_same_bits(run_of(path, read_program, value=value), wanted)


def test_weights_that_shared_memory_share_it_again(read_program: ProgramReader, tmp_path: Path) -> None:
    prepared = read_program(save(tmp_path / "odd.pt2", torch.randn(3, 4)), "cpu")
    by_name = {tensor.name: tensor for tensor in prepared.plan.tensors}
    assert by_name["left"].storage == by_name["right"].storage
    assert by_name["right"].stride == (1, 4)


@pytest.mark.parametrize("model", sorted(RELEASE.models()))
def test_every_engine_answers_the_same_to_the_last_bit(
    process: ProgramProcess, models: Path, model: ModelVersion
) -> None:
    bundle = open_bundle(models / model.model / VERSION)
    answers = []
    for read_program in (None, process.read):
        servable = open_servable(replace(bundle, read_program=read_program), "cpu")
        answers.append(
            [
                servable.retrieve(asked, 50, (), (), 0)
                if isinstance(servable, Retriever)
                else servable.score(asked, all_items(), 0, {}, (), 0)
                for asked in contexts()
            ]
        )
    for here, there in zip(*answers, strict=True):
        assert here.item_ids == there.item_ids
        assert here.columns.keys() == there.columns.keys()
        for name, column in here.columns.items():
            assert column.tobytes() == there.columns[name].tobytes()


@pytest.mark.parametrize("content", [b"", b"PK nonsense"])
def test_what_is_no_program_is_refused_and_the_next_one_read(
    read_program: ProgramReader, models: Path, tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "broken.pt2").write_bytes(content)
    with pytest.raises(ValueError, match=r"\w"):
        read_program(tmp_path / "broken.pt2", "cpu")
    with pytest.raises(ValueError, match="missing"):
        read_program(tmp_path / "missing.pt2", "cpu")
    assert read_program(models / "ranker" / VERSION / "scorer.pt2", "cpu").plan.codes


def test_a_process_that_died_is_replaced(process: ProgramProcess, models: Path) -> None:
    process.start()
    before = process.pid
    os.kill(before, signal.SIGKILL)
    assert process.read(models / "ranker" / VERSION / "scorer.pt2", "cpu").plan.codes
    assert process.pid != before


def test_another_process_takes_over_in_time(models: Path) -> None:
    process = ProgramProcess(programs_per_life=1)
    process.start()
    before = process.pid
    process.read(models / "ranker" / VERSION / "scorer.pt2", "cpu")
    assert process.pid not in (0, before)
    assert gone(before)
    process.close()
    assert process.pid == 0


def test_it_ends_with_the_process_that_it_reads_for() -> None:
    holder = (
        "import sys; from shards.program_process import program_process as p; p().start();"
        "print(p().pid, flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", holder], cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as parent:
        assert parent.stdout is not None
        reader = int(parent.stdout.readline())
        assert not gone(reader)
        parent.kill()
    wait_until(lambda: gone(reader))


def gone(pid: int) -> bool:
    """Return whether a process has ended, seen by whoever may be its parent now or not."""
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_until(true: Callable[[], bool], timeout_s: float = 60) -> None:
    give_up = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < give_up
        time.sleep(0.02)
