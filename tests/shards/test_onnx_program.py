import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shards.bundle import open_bundle, read_manifest, write_bundle
from shards.errors import MismatchedBundle, Unavailable
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.loading import load_bundle, served_bytes
from shards.manifest import MANIFEST_FILE, ProgramSpec
from shards.onnx_program import OnnxProgram
from shards.release import ModelVersion
from shards.runner import ExportedProgramRunner, OnnxRunner, open_runner
from shards.servable import open_servable
from shards.stages import Retriever
from tests.shards.bundles import VERSION, all_items, contexts
from tests.shards.onnx_bundles import write_with_onnx

ENGINES = ("two_tower", "pre_ranker", "ranker")


@pytest.fixture(scope="module")
def both_forms(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("onnx")
    for name in ENGINES:
        write_with_onnx(root, models / name / VERSION)
    return root


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_answers_as_torch_has_it_answer(models: Path, both_forms: Path, name: str) -> None:
    torch_engine, onnx_engine = (
        open_servable(open_bundle(root / name / VERSION), "cpu") for root in (models, both_forms)
    )
    for asked in contexts():
        answers = [
            engine.retrieve(asked, 200, (), (), 0)
            if isinstance(engine, Retriever)
            else engine.score(asked, all_items(), 0, {}, (), 0)
            for engine in (torch_engine, onnx_engine)
        ]
        by_item = [dict(zip(a.item_ids, a.columns["score"].tolist(), strict=True)) for a in answers]
        assert by_item[0] == pytest.approx(by_item[1], abs=1e-5)


@pytest.mark.parametrize("name", ENGINES)
def test_goldens_of_the_eager_model_hold(both_forms: Path, name: str) -> None:
    bundle = open_bundle(both_forms / name / VERSION)
    assert all(
        isinstance(open_runner(bundle, program, "cpu"), OnnxRunner) for program in bundle.manifest.programs
    )
    tolerance = bundle.manifest.tolerance
    golden = read_golden(bundle.file(GOLDEN_FILE))
    replay(open_servable(bundle, "cpu"), golden, tolerance.rtol, tolerance.atol)


def test_a_bundle_without_the_form_is_run_by_torch(models: Path) -> None:
    bundle = open_bundle(models / "ranker" / VERSION)
    assert isinstance(open_runner(bundle, "scorer", "cpu"), ExportedProgramRunner)


def test_a_bundle_is_charged_for_one_form(both_forms: Path) -> None:
    path = both_forms / "two_tower" / VERSION
    manifest = read_manifest(path)
    sizes = {name: digest.size_bytes for name, digest in manifest.files.items() if name != GOLDEN_FILE}
    assert served_bytes(manifest, "cpu") == sum(sizes.values()) - sizes["query_tower.pt2"]
    assert served_bytes(manifest, "cuda:0") == sum(sizes.values()) - sizes["query_tower.onnx"]
    loaded = load_bundle(ModelVersion("two_tower", VERSION), path, "cpu")
    assert loaded.memory.host_bytes >= served_bytes(manifest, "cpu")


def test_a_program_goes_with_its_last_reference(both_forms: Path) -> None:
    bundle = open_bundle(both_forms / "ranker" / VERSION)
    program = OnnxProgram(bundle.file("scorer.onnx"))
    gone = weakref.ref(program._session)
    gc.disable()
    try:
        del program
        assert gone() is None
    finally:
        gc.enable()


Alter = Callable[[ProgramSpec, Path], ProgramSpec]


def altered(both_forms: Path, root: Path, alter: Alter) -> Path:
    original = both_forms / "two_tower" / VERSION
    manifest = read_manifest(original)
    program = alter(manifest.programs["query_tower"], original)

    def fill(folder: Path) -> None:
        for name in manifest.files:
            content = b"nonsense" if name == "query_tower.onnx" and program.outputs == () else None
            (folder / name).write_bytes(content or (original / name).read_bytes())

    return write_bundle(root, replace(manifest, programs={"query_tower": program}), fill)


def test_a_file_that_is_no_program_is_refused(both_forms: Path, tmp_path: Path) -> None:
    path = altered(both_forms, tmp_path, lambda program, _: replace(program, outputs=()))
    with pytest.raises(MismatchedBundle, match=r"query_tower\.onnx: is not a program that ONNX Runtime can"):
        open_runner(open_bundle(path), "query_tower", "cpu")


def test_outputs_other_than_the_manifests_are_refused(both_forms: Path, tmp_path: Path) -> None:
    path = altered(both_forms, tmp_path, lambda program, _: replace(program, outputs=("a", "b")))
    with pytest.raises(MismatchedBundle, match=r"query_tower\.onnx: gives 1 outputs, not a, b"):
        open_runner(open_bundle(path), "query_tower", "cpu")


def test_inputs_other_than_the_manifests_are_refused(both_forms: Path, tmp_path: Path) -> None:
    path = altered(both_forms, tmp_path, lambda program, _: replace(program, inputs=program.inputs[:1]))
    with pytest.raises(MismatchedBundle, match=r"query_tower\.onnx: takes 'history_items', which the mani"):
        open_runner(open_bundle(path), "query_tower", "cpu")


def test_a_missing_file_is_named(both_forms: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchedBundle, match=r"program 'query_tower' is in gone\.onnx, which is not here"):
        altered(both_forms, tmp_path, lambda program, _: replace(program, onnx_file="gone.onnx"))


def test_a_program_that_fails_says_so_in_one_line(both_forms: Path) -> None:
    runner = open_runner(open_bundle(both_forms / "two_tower" / VERSION), "query_tower", "cpu")
    shapes = {tensor.name: tuple(size or 1 for size in tensor.shape) for tensor in runner.spec.inputs}
    out_of_range = {name: np.full(shape, 10**6, np.int64) for name, shape in shapes.items()}
    with pytest.raises(Unavailable, match=r"program query_tower\.onnx failed: [^\n]+$"):
        runner(out_of_range)


def test_both_forms_are_in_the_manifest(both_forms: Path) -> None:
    files = read_manifest(both_forms / "ranker" / VERSION).files
    assert {"scorer.pt2", "scorer.onnx"} <= files.keys()
    assert MANIFEST_FILE not in files
