from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from shards.ann_index import AnnIndex, AnnKnobs
from shards.errors import CorruptBundle, MismatchedBundle

KINDS = (
    "Flat",
    "SQ8",
    "IVF16,Flat",
    "HNSW8",
    "PCA8,Flat",
    "PCA8,IVF16,Flat",
    "IVF16,SQ8,RFlat",
    "IVF16,PQ8x4fs,RFlat",
)


def vectors() -> NDArray[np.float32]:
    drawn = np.random.default_rng(0).normal(size=(700, 16)).astype(np.float32)
    unit: NDArray[np.float32] = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    return unit


def write_index(path: Path, kind: str, metric: int = faiss.METRIC_INNER_PRODUCT) -> Path:
    index = faiss.index_factory(16, kind, metric)
    index.train(vectors())
    index.add(vectors())
    faiss.write_index(index, str(path))
    return path


@pytest.fixture(params=KINDS)
def index(request: pytest.FixtureRequest, tmp_path: Path) -> AnnIndex:
    return AnnIndex.open(write_index(tmp_path / "index.faiss", request.param))


def test_an_item_is_near_itself(index: AnnIndex) -> None:
    assert (len(index), index.width) == (700, 16)
    scores, rows = index.search(vectors()[:1], 10)
    assert rows[0] == 0
    assert (np.diff(scores) <= 0).all()


def test_a_filter_never_starves(index: AnnIndex) -> None:
    allowed = np.zeros(700, np.bool_)
    allowed[[3, 250, 251, 255, 256, 699]] = True
    scores, rows = index.search(vectors()[:1], 5, allowed)
    assert len(rows) == len(scores) == 5
    assert allowed[rows].all()
    assert sorted(index.search(vectors()[:1], 50, allowed)[1]) == [3, 250, 251, 255, 256, 699]


def test_nothing_allowed_finds_nothing(index: AnnIndex) -> None:
    scores, rows = index.search(vectors()[:1], 5, np.zeros(700, np.bool_))
    assert (len(scores), len(rows)) == (0, 0)


def test_more_than_the_catalogue_is_the_catalogue(index: AnnIndex) -> None:
    _, rows = index.search(vectors()[:1], 10_000)
    assert sorted(rows) == list(range(700))


@pytest.mark.parametrize(
    ("kind", "knobs", "value_of"),
    [
        ("IVF16,Flat", AnnKnobs(nprobe=5), lambda index: index.nprobe),
        ("PCA8,IVF16,Flat", AnnKnobs(nprobe=5), lambda index: faiss.extract_index_ivf(index).nprobe),
        ("IVF16,SQ8,RFlat", AnnKnobs(k_factor=5.0), lambda index: index.k_factor),
        ("HNSW8", AnnKnobs(ef_search=5), lambda index: index.hnsw.efSearch),
    ],
)
def test_knobs_are_set_on_load_and_left_alone_otherwise(
    tmp_path: Path, kind: str, knobs: AnnKnobs, value_of: Callable[[Any], float]
) -> None:
    path = write_index(tmp_path / "index.faiss", kind)
    as_written, turned = AnnIndex.open(path), AnnIndex.open(path, knobs=knobs)
    assert value_of(faiss.downcast_index(turned._index)) == 5
    file = faiss.read_index(str(path))
    assert value_of(faiss.downcast_index(as_written._index)) == value_of(faiss.downcast_index(file)) != 5


def test_an_exact_index_gives_inner_products(tmp_path: Path) -> None:
    index = AnnIndex.open(write_index(tmp_path / "index.faiss", "Flat"))
    allowed = np.arange(700) % 3 == 0
    scores, rows = index.search(vectors()[5:6], 20, allowed)
    products = np.where(allowed, vectors() @ vectors()[5], -np.inf)
    expected = np.argsort(-products, kind="stable")[:20]
    np.testing.assert_array_equal(rows, expected)
    np.testing.assert_allclose(scores, products[expected], rtol=1e-5)


def test_an_index_of_distances_is_refused(tmp_path: Path) -> None:
    path = write_index(tmp_path / "index.faiss", "Flat", faiss.METRIC_L2)
    with pytest.raises(MismatchedBundle, match=r"index\.faiss: is not by inner product"):
        AnnIndex.open(path)


def test_an_index_that_cannot_filter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MismatchedBundle, match=r"index\.faiss: is of a kind that cannot filter"):
        AnnIndex.open(write_index(tmp_path / "index.faiss", "PQ2x4fs"))


def test_a_file_that_is_no_index_is_corrupt(tmp_path: Path) -> None:
    path = tmp_path / "index.faiss"
    path.write_bytes(b"IxF nonsense")
    with pytest.raises(CorruptBundle, match=r"index\.faiss: cannot be read"):
        AnnIndex.open(path)


@pytest.mark.skipif(hasattr(faiss, "StandardGpuResources"), reason="has FAISS for GPUs")
def test_without_a_gpu_build_the_index_stays_on_the_cpu(tmp_path: Path) -> None:
    index = AnnIndex.open(write_index(tmp_path / "index.faiss", "Flat"), "cuda:0")
    assert index.search(vectors()[:1], 1)[1].tolist() == [0]
