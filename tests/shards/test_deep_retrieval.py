"""The engine of paths: what lies on them in the order of the vectors, filters, and files that do not fit."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from shards.bundle import open_bundle, write_bundle
from shards.catalogue import ITEM_VECTORS_FILE
from shards.deep_retrieval import DeepRetrieval, open_deep_retrieval
from shards.errors import MismatchedBundle
from shards.path_index import PATHS_FILE, PathIndex, PathLayer
from shards.release import Stage
from shards.search_context import FilterClause
from tests.shards.bundles import ITEMS, VERSION, context, item_vectors, manifest, seeded_words
from tests.shards.programs import WIDTH

NODES = 5


def layers(width: int = WIDTH) -> tuple[PathLayer, ...]:
    rng = np.random.default_rng(0)

    def normal(*shape: int) -> NDArray[np.float32]:
        return rng.normal(size=shape).astype(np.float32)

    return tuple(
        PathLayer(
            query_DH=normal(width, 8),
            bias_H=normal(8),
            before_LKH=normal(number, NODES, 8),
            out_HK=normal(8, NODES),
            out_bias_K=normal(NODES),
        )
        for number in range(2)
    )


def opened(
    models: Path, root: Path, *, width: int = WIDTH, vectors: NDArray[np.float32] | None = None, **params: int
) -> DeepRetrieval:
    """Return the engine over the shared two-tower bundle, its items on random paths."""
    towers = open_bundle(models / "two_tower" / VERSION)
    path_NJ = np.random.default_rng(1).integers(0, NODES**2, size=(len(ITEMS), 2))

    def fill(folder: Path) -> None:
        for name in set(towers.manifest.files) - {"index.faiss", "golden.npz"}:
            (folder / name).write_bytes(towers.file(name).read_bytes())
        PathIndex.of(layers(width), path_NJ).save(folder / PATHS_FILE)
        np.save(folder / ITEM_VECTORS_FILE, item_vectors(seeded_words()) if vectors is None else vectors)

    fields: Mapping[str, object] = {"programs": towers.manifest.programs, "params": params}
    described = manifest("paths", Stage.RETRIEVAL, "deep_retrieval", **fields)
    return open_deep_retrieval(open_bundle(write_bundle(root, described, fill)), "cpu")


def test_all_paths_answer_as_brute_force_does(models: Path, tmp_path: Path) -> None:
    found = opened(models, tmp_path, beam=NODES**2).retrieve(context("red mug"), 5, (), ("title",), 1)
    assert found.item_ids[:2] == ("item-000", "item-100")
    assert found.columns["score"][0] == pytest.approx(1.0, abs=1e-5)
    assert found.attributes == {"title": ("RED MUG",)}


def test_few_paths_score_few_items_best_first(models: Path, tmp_path: Path) -> None:
    engine = opened(models, tmp_path, beam=2, widest=2)
    vector_1D = item_vectors(seeded_words())[:1]
    rows = engine.reached(vector_1D, 200)
    assert 0 < len(rows) < 60
    found = engine.retrieve(context("red mug"), 200, (), (), 0)
    assert sorted(found.item_ids) == [f"item-{row:03d}" for row in rows]
    assert (np.diff(found.columns["score"]) <= 0).all()


def test_a_search_widens_until_it_has_what_was_asked_for(models: Path, tmp_path: Path) -> None:
    narrow, wide = opened(models, tmp_path / "1", beam=1, widest=1), opened(models, tmp_path / "2", beam=1)
    rare = (FilterClause(attribute="item_id", any_of=("item-007", "item-150")),)
    assert len(wide.retrieve(context("red mug"), 2, rare, (), 0)) == 2
    assert len(narrow.retrieve(context("red mug"), 200, (), (), 0)) < 60
    assert len(wide.retrieve(context("red mug"), 200, (), (), 0)) == 200


def test_what_does_not_fit_is_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(MismatchedBundle, match=r"paths\.npz: is for vectors of width 4, not 16"):
        opened(models, tmp_path / "1", width=4)
    with pytest.raises(MismatchedBundle, match=r"item_vectors\.npy: is float32 \(3, 16\)"):
        opened(models, tmp_path / "2", vectors=np.zeros((3, WIDTH), np.float32))
    with pytest.raises(MismatchedBundle, match="beam must be at least 1"):
        opened(models, tmp_path / "3", beam=0)
