"""Choosing an index: what is tried, what is kept of it, and the bundle that comes of it."""

from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from shards.ann_index import AnnIndex, AnnKnobs
from shards.bundle import open_bundle
from shards.errors import InvalidInput, MismatchedBundle
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.release import ModelVersion
from shards.servable import open_servable
from shards.two_tower import TwoTower
from tests.shards.bundles import VERSION, context, contexts, seeded_words, write_lexical, write_two_tower
from training.ann_tuning import AnnTarget, AnnTuner, Measured, Queries, best_of, factories_for
from training.item_index import build, exact_vectors, untuned_index
from training.tuned_bundle import Tunable, open_tunable, write_tuned

MODEL = ModelVersion("two_tower", VERSION)


def clustered(count: int, seed: int = 0, width: int = 16) -> NDArray[np.float32]:
    """Return unit vectors around fifty centres; equal seeds share their centres with others."""
    centre_TD = np.random.default_rng(99).normal(size=(50, width))
    rng = np.random.default_rng(seed)
    near_ND = centre_TD[rng.integers(50, size=count)] + 0.3 * rng.normal(size=(count, width))
    return np.asarray(near_ND / np.linalg.norm(near_ND, axis=1, keepdims=True), np.float32)


def tuner(folder: Path, tried: list[Measured] | None = None) -> AnnTuner:
    vector_ND = clustered(3000)
    return AnnTuner(
        vector_ND=vector_ND,
        queries=Queries(compared_QD=clustered(40, 1), held_out_QD=clustered(40, 2)),
        target=AnnTarget(k=10, recall=0.9, p99_ms=1000.0),
        factories=factories_for(*vector_ND.shape),
        folder=folder,
        on_trial=(tried if tried is not None else []).append,
    )


def test_every_kind_is_tried_and_the_choice_reaches_the_target(tmp_path: Path) -> None:
    tuned = tuner(tmp_path).tune(12)
    assert len(tuned.tried) == 12
    assert {one.factory for one in tuned.tried} == {"Flat", "IVF64,SQ8", "HNSW16", "IVF64,PQ8x4fs,RFlat"}
    assert tuned.choice.recall > 0.85
    assert tuned.index.ntotal == 3000
    flat = [one for one in tuned.tried if one.factory == "Flat"]
    assert all(one.recall == 1.0 for one in flat)


def test_a_run_that_was_broken_off_goes_on(tmp_path: Path) -> None:
    first: list[Measured] = []
    tuner(tmp_path, first).tune(5)
    later: list[Measured] = []
    tuned = tuner(tmp_path, later).tune(8)
    assert (len(first), len(later)) == (5, 3)
    assert list(tuned.tried[:5]) == first
    assert not list(tmp_path.glob("*.writing"))


def test_the_fastest_that_is_good_enough_is_chosen() -> None:
    def measured(recall: float, median_ms: float, p99_ms: float = 1.0) -> Measured:
        return Measured(factory="Flat", knobs=AnnKnobs(), recall=recall, median_ms=median_ms, p99_ms=p99_ms)

    target = AnnTarget(recall=0.99, p99_ms=5.0)
    good, best = measured(0.99, 0.4), measured(0.999, 0.9)
    others = [measured(0.98, 0.1), measured(0.995, 0.2, p99_ms=6.0)]
    assert best_of([*others, best, good], target) == good
    assert best_of(others, target) == others[1]


@pytest.mark.parametrize("factory", ["Flat", "IVF8,Flat", "HNSW8", "IVF8,PQ8x4fs,RFlat"])
def test_vectors_are_read_back_in_order(factory: str) -> None:
    vector_ND = clustered(900)
    np.testing.assert_allclose(exact_vectors(build(vector_ND, factory)), vector_ND, atol=1e-6)


def test_codes_alone_are_no_vectors() -> None:
    with pytest.raises(MismatchedBundle, match="is a IndexIVFScalarQuantizer, which keeps no exact vectors"):
        exact_vectors(build(clustered(900), "IVF8,SQ8"))


def test_a_small_catalogue_is_compared_whole() -> None:
    assert isinstance(faiss.downcast_index(untuned_index(clustered(100))), faiss.IndexFlat)


@pytest.fixture
def models(tmp_path: Path) -> Path:
    root = tmp_path / "models"
    root.mkdir()
    write_two_tower(root, seeded_words())
    return root


def tuner_of(tunable: Tunable, folder: Path) -> AnnTuner:
    queries = Queries(
        compared_QD=tunable.queries(contexts()), held_out_QD=tunable.queries([context("white clock")])
    )
    return AnnTuner(
        vector_ND=tunable.vector_ND,
        queries=queries,
        target=AnnTarget(k=10, recall=0.5, p99_ms=1000.0),
        factories=("IVF8,SQ8",),
        folder=folder,
    )


def test_the_choice_is_in_the_bundle_and_used_on_load(models: Path, tmp_path: Path) -> None:
    tunable = open_tunable(models, MODEL)
    tuned = tuner_of(tunable, tmp_path / "tuning").tune(3)
    written = write_tuned(models, tunable, "1-ann", tuned)
    bundle = open_bundle(models / "two_tower" / "1-ann", written)
    knobs = bundle.manifest.params["ann"]
    assert knobs == {"nprobe": tuned.choice.knobs.nprobe, "k_factor": 0.0, "ef_search": 0}
    assert bundle.manifest.params["index"] == "IVF8,SQ8"
    assert bundle.manifest.metrics["ann_recall"] == tuned.choice.recall
    engine = open_servable(bundle, "cpu")
    assert isinstance(engine, TwoTower)
    assert isinstance(engine.ann, AnnIndex)
    index: Any = faiss.downcast_index(engine.ann._index)
    assert index.nprobe == tuned.choice.knobs.nprobe
    tolerance = bundle.manifest.tolerance
    replay(engine, read_golden(bundle.file(GOLDEN_FILE)), tolerance.rtol, tolerance.atol)
    assert engine.retrieve(context("red mug"), 2, (), (), 0).item_ids == ("item-000", "item-100")


def test_a_version_is_never_written_over(models: Path, tmp_path: Path) -> None:
    tunable = open_tunable(models, MODEL)
    tuned = tuner_of(tunable, tmp_path / "tuning").tune(1)
    with pytest.raises(FileExistsError):
        write_tuned(models, tunable, VERSION, tuned)


def test_only_a_two_tower_model_is_tuned(models: Path) -> None:
    write_lexical(models)
    with pytest.raises(InvalidInput, match="lexical@1 is no undivided two-tower model"):
        open_tunable(models, ModelVersion("lexical", VERSION))


@pytest.mark.parametrize("wrong", [{"recall": 0.0}, {"recall": 1.1}, {"k": 0}, {"p99_ms": 0.0}])
def test_a_target_that_cannot_be_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        AnnTarget(**wrong)  # type: ignore[arg-type]
