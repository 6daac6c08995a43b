from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from shards.bundle import Bundle, open_bundle, write_bundle
from shards.errors import MismatchedBundle, Unavailable
from shards.manifest import ProgramSpec, TensorSpec
from shards.release import Stage
from shards.runner import open_runner
from tests.shards.bundles import manifest
from tests.shards.programs import export, spec


class Shift(nn.Module):
    """Adds a learned number and looks vectors up."""

    def __init__(self) -> None:
        super().__init__()
        self.vectors = nn.Embedding(4, 3)
        self.shift = nn.Parameter(torch.tensor(2.0))

    def forward(self, ids: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        return self.vectors(ids), values + self.shift


EXAMPLE = {"ids": torch.zeros(2, dtype=torch.int64), "values": torch.zeros(2)}
PROGRAM = ProgramSpec(
    file="shift.pt2",
    inputs=(
        TensorSpec(name="ids", dtype="int64", shape=(None,)),
        TensorSpec(name="values", dtype="float32", shape=(None,)),
    ),
    outputs=("vectors", "shifted"),
)


def bundle_of(root: Path, program: ProgramSpec, fill: Callable[[Path], None]) -> Bundle:
    described = manifest("shift", Stage.RANKING, "multi_task", programs={"shift": program})
    return open_bundle(write_bundle(root, described, fill))


@pytest.fixture
def model() -> Shift:
    torch.manual_seed(3)
    return Shift()


@pytest.fixture
def bundle(tmp_path: Path, model: Shift) -> Bundle:
    return bundle_of(
        tmp_path, PROGRAM, lambda f: export(model, EXAMPLE, f / "shift.pt2", varying=("ids", "values"))
    )


@pytest.mark.parametrize("rows", [1, 2, 7])
def test_a_loaded_program_gives_what_the_model_gave(bundle: Bundle, model: Shift, rows: int) -> None:
    ids, values = np.arange(rows) % 4, np.linspace(0, 1, rows, dtype=np.float32)
    outputs = open_runner(bundle, "shift", "cpu")({"ids": ids, "values": values, "unused": values})
    with torch.no_grad():
        vectors, shifted = model(torch.from_numpy(ids), torch.from_numpy(values))
    np.testing.assert_array_equal(outputs["vectors"], vectors.numpy())
    np.testing.assert_array_equal(outputs["shifted"], shifted.numpy())


def test_read_only_and_strided_arrays_are_taken(bundle: Bundle) -> None:
    values = np.arange(8, dtype=np.float32)[::2]
    values.flags.writeable = False
    outputs = open_runner(bundle, "shift", "cpu")({"ids": np.zeros(4, np.int64), "values": values})
    assert outputs["shifted"].tolist() == [2, 4, 6, 8]


@pytest.mark.parametrize(
    ("inputs", "problem"),
    [
        ({"ids": np.zeros(2, np.int64)}, "shift.pt2: needs input 'values'"),
        ({"ids": np.zeros(2, np.int64), "values": np.zeros(2)}, "'values' as float32 .* not float64"),
        ({"ids": np.zeros((2, 1), np.int64), "values": np.zeros(2, np.float32)}, r"not int64 \(2, 1\)"),
    ],
)
def test_inputs_other_than_the_manifests_are_refused(
    bundle: Bundle, inputs: dict[str, np.ndarray], problem: str
) -> None:
    with pytest.raises(MismatchedBundle, match=problem):
        open_runner(bundle, "shift", "cpu")(inputs)


def test_a_program_that_fails_says_so_in_one_line(bundle: Bundle) -> None:
    with pytest.raises(Unavailable, match=r"program shift\.pt2 failed: [^\n]+$"):
        open_runner(bundle, "shift", "cpu")({"ids": np.array([9]), "values": np.zeros(1, np.float32)})


def test_outputs_other_than_the_manifests_are_refused(tmp_path: Path, model: Shift) -> None:
    program = spec("shift.pt2", EXAMPLE, output="one")
    bundle = bundle_of(tmp_path, program, lambda f: export(model, EXAMPLE, f / "shift.pt2"))
    with pytest.raises(MismatchedBundle, match="gives 2 outputs, not one"):
        open_runner(bundle, "shift", "cpu")({name: value.numpy() for name, value in EXAMPLE.items()})


def test_a_file_that_is_no_program_is_refused(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "shift.pt2").write_bytes(b"PK nonsense")

    bundle = bundle_of(tmp_path, PROGRAM, fill)
    with pytest.raises(MismatchedBundle, match=r"shift\.pt2: is not a program"):
        open_runner(bundle, "shift", "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_a_device_that_is_not_there_is_unavailable(bundle: Bundle) -> None:
    with pytest.raises(Unavailable, match="device 'cuda:0' cannot be used here"):
        open_runner(bundle, "shift", "cuda:0")
