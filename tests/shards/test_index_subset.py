import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from shards.ann_index import AnnIndex
from shards.errors import MismatchedBundle
from shards.index_subset import is_graph, subset

EXACT = ("Flat", "SQ8", "PCA8,Flat")
LISTS = ("IVF16,Flat", "PCA8,IVF16,Flat", "IVF16,SQ8", "IVF16,SQ8,RFlat")
COUNT = 1200


def vectors() -> NDArray[np.float32]:
    """Return vectors of which many are equal, and some nothing."""
    drawn = np.random.default_rng(0).normal(size=(COUNT, 16)).astype(np.float32)
    drawn[500:800] = drawn[:300]
    drawn[1150:] = 0
    return drawn


def built(kind: str) -> faiss.Index:
    index = faiss.index_factory(16, kind, faiss.METRIC_INNER_PRODUCT)
    index.train(vectors())
    index.add(vectors())
    return index


def searched(
    parts: list[tuple[AnnIndex, NDArray[np.int64]]],
    query: NDArray[np.float32],
    k: int,
    allowed_N: NDArray[np.bool_],
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    found = [(part.search(query, k, allowed_N[rows]), rows) for part, rows in parts]
    scores = np.concatenate([scores for (scores, _), _ in found])
    rows = np.concatenate([rows[at] for (_, at), rows in found])
    order = np.lexsort((rows, -scores))[:k]
    return scores[order], rows[order]


@pytest.mark.parametrize("kind", EXACT + LISTS)
@pytest.mark.parametrize("partitions", [2, 4, 8])
def test_parts_find_what_the_whole_finds_or_better(kind: str, partitions: int) -> None:
    index, rng = built(kind), np.random.default_rng(1)
    whole, owners = AnnIndex(index), rng.integers(0, partitions, COUNT)
    rows = [np.flatnonzero(owners == p) for p in range(partitions)]
    parts = [(AnnIndex(subset(index, rows_N)), rows_N) for rows_N in rows]
    for query in vectors()[::120]:
        for k in (1, 7, 99, 150, 600):
            allowed_N = rng.random(COUNT) < rng.choice([0.1, 1.0])
            expected, gathered = (
                whole.search(query[None], k, allowed_N),
                searched(parts, query[None], k, allowed_N),
            )
            assert len(gathered[0]) == len(expected[0])
            assert (gathered[0] >= expected[0]).all()
            if kind in EXACT:
                np.testing.assert_array_equal(gathered[0], expected[0])
                np.testing.assert_array_equal(gathered[1], expected[1])


def test_a_tie_for_the_last_place_goes_to_the_first_row() -> None:
    whole = AnnIndex(built("Flat"))
    nothing = np.zeros((1, 16), np.float32)
    for k in (1, 99, 100, 101, 1000):
        assert whole.search(nothing, k)[1].tolist() == list(range(k))


def test_only_graphs_are_built_anew() -> None:
    assert [kind for kind in (*EXACT, *LISTS, "HNSW8", "PCA8,HNSW8") if is_graph(built(kind))] == [
        "HNSW8",
        "PCA8,HNSW8",
    ]
    part = AnnIndex(subset(built("HNSW8"), np.arange(0, COUNT, 2)))
    scores, rows = part.search(vectors()[100:101], 5)
    np.testing.assert_allclose(scores, vectors()[::2][rows] @ vectors()[100], rtol=1e-5)


def test_the_whole_stays_as_it_was() -> None:
    index = built("IVF16,Flat")
    before = faiss.serialize_index(index)
    subset(index, np.arange(0, COUNT, 3))
    np.testing.assert_array_equal(faiss.serialize_index(index), before)


def test_codes_packed_for_fast_scans_are_refused_unless_the_vectors_are_there() -> None:
    with pytest.raises(MismatchedBundle, match="IndexIVFPQFastScan, whose codes cannot be taken out"):
        subset(built("IVF4,PQ4x4fs"), np.arange(10))
    assert subset(built("IVF4,PQ4x4fs,RFlat"), np.arange(0, COUNT, 2)).ntotal == COUNT // 2
