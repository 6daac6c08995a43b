"""FAISS indexes of item vectors by inner product: made from a factory string, and read back as vectors.

Legend: N = items, D = width of a vector.
"""

import math
from typing import Any

import faiss as faiss_module

from shards.candidates import Floats
from shards.errors import MismatchedBundle
from shards.two_tower import INDEX_FILE

faiss: Any = faiss_module
"""Its stubs leave out factories and inverted lists."""

_EXACT_UP_TO = 200_000
"""Items up to which every vector is compared; larger catalogues get inverted lists."""

_POINTS_PER_LIST = 64
"""Vectors that k-means looks at for each inverted list: FAISS's own 256 take four times as long."""


def untuned_index(vector_ND: Floats) -> Any:
    """Return an index that fits the size of the catalogue; `headrace tune ann` finds a better one."""
    if len(vector_ND) <= _EXACT_UP_TO:
        return build(vector_ND, "Flat")
    lists = lists_for(len(vector_ND))
    index = build(vector_ND, f"IVF{lists},Flat")
    index.nprobe = lists // 32
    return index


def build(vector_ND: Floats, factory: str, seed: int = 0) -> Any:
    """Return an index of this kind that holds the vectors [N, D]; equal seeds give equal ones."""
    index = faiss.index_factory(vector_ND.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
    if factory.startswith("IVF"):
        clustering = faiss.extract_index_ivf(index).cp
        clustering.max_points_per_centroid = _POINTS_PER_LIST
        clustering.seed = seed + 1
    index.train(vector_ND)
    index.add(vector_ND)
    return index


def lists_for(count: int) -> int:
    """Return how many inverted lists so many vectors are divided over: a power of two about their root."""
    return int(2 ** max(2, round(math.log2(count) / 2)))


def exact_vectors(index: Any) -> Floats:
    """Return the vectors [N, D] in the order of their ids; MismatchedBundle where there are only codes."""
    known = faiss.downcast_index(index)
    if isinstance(known, faiss.IndexRefine):
        return exact_vectors(known.refine_index)
    if isinstance(known, faiss.IndexHNSWFlat):
        return exact_vectors(known.storage)
    if isinstance(known, faiss.IndexIVFFlat):
        known.make_direct_map()
    elif not isinstance(known, faiss.IndexFlat):
        raise MismatchedBundle(INDEX_FILE, f"is a {type(known).__name__}, which keeps no exact vectors")
    return known.reconstruct_n(0, known.ntotal)  # type: ignore[no-any-return]
