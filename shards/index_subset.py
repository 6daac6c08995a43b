"""A part of a FAISS index: the same codes, centroids and settings over fewer rows.

What a search of all parts finds, against a search of the whole with equal parameters:
- Flat, SQ, PQ (exhaustive): the same neighbours with the same scores.
- IVF, also refined: the same lists are looked at, so each part finds at least what the whole found among its
  items. A part that found too few looks at all of its lists, and a part refines candidates that the whole had
  no room for: the n-th of all may be better than the n-th of the whole, never worse.
- IVF with fast-scan codes, refined: as above but for ties among the codes.
- HNSW: graphs are built anew, so neighbours may differ; scores never do.

Legend: N = rows kept.
"""

from typing import Any

import faiss as faiss_module
import numpy as np
from numpy.typing import NDArray

from shards.errors import MismatchedBundle

faiss: Any = faiss_module
"""Its stubs leave out clones and inverted lists."""

Rows = NDArray[np.int64]


def subset(index: Any, rows_N: Rows) -> Any:
    """Return a new index of these rows, which rise, under new ids from 0 on.

    Raises MismatchedBundle for a kind whose codes cannot be taken out.
    """
    part = faiss.clone_index(index)
    _keep(part, rows_N)
    return part


def is_graph(index: Any) -> bool:
    """Say whether a subset answers by a graph of its own."""
    # A second name, as the first may be all that keeps the index in memory.
    known = faiss.downcast_index(index)
    if isinstance(known, faiss.IndexPreTransform):
        return is_graph(known.index)
    return is_graph(known.base_index) if isinstance(known, faiss.IndexRefine) else _is_hnsw(known)


def _is_hnsw(index: Any) -> bool:
    return isinstance(index, faiss.IndexHNSW)


def _keep(index: Any, rows_N: Rows) -> None:
    """Drop all other rows; the caller holds the object that owns the index."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        _keep(index.index, rows_N)
        index.ntotal = len(rows_N)
    elif isinstance(index, faiss.IndexRefine):
        _keep_refined(index, rows_N)
    elif _is_hnsw(index):
        vectors_ND = index.storage.reconstruct_n(0, index.ntotal)[rows_N]
        index.reset()
        index.add(vectors_ND)
    elif isinstance(index, faiss.IndexFlatCodes):
        _keep_codes(index, rows_N)
    elif isinstance(index, faiss.IndexIVF) and not isinstance(index, faiss.IndexIVFFastScan):
        _keep_lists(index, rows_N)
    else:
        raise MismatchedBundle("index.faiss", f"is a {type(index).__name__}, whose codes cannot be taken out")


def _keep_refined(index: Any, rows_N: Rows) -> None:
    base = faiss.downcast_index(index.base_index)
    exact = faiss.downcast_index(index.refine_index)
    if isinstance(base, faiss.IndexIVFFastScan | faiss.IndexFastScan) and isinstance(exact, faiss.IndexFlat):
        # Its codes are packed by 32 rows, but made from vectors that are at hand.
        vectors_ND = exact.reconstruct_n(0, exact.ntotal)[rows_N]
        base.reset()
        base.add(vectors_ND)
    else:
        _keep(base, rows_N)
    _keep(exact, rows_N)
    index.ntotal = len(rows_N)


def _keep_codes(index: Any, rows_N: Rows) -> None:
    codes = faiss.rev_swig_ptr(index.codes.data(), index.ntotal * index.code_size)
    kept = np.ascontiguousarray(codes.reshape(index.ntotal, index.code_size)[rows_N])
    index.reset()
    index.add_sa_codes(kept)


def _keep_lists(index: Any, rows_N: Rows) -> None:
    index.set_direct_map_type(faiss.DirectMap.NoMap)
    new_ids = np.full(index.ntotal, -1, np.int64)
    new_ids[rows_N] = np.arange(len(rows_N))
    lists = [_entries(index.invlists, number, index.code_size) for number in range(index.nlist)]
    index.invlists.reset()
    for number, (ids, codes) in enumerate(lists):
        kept = new_ids[ids] >= 0
        kept_ids, kept_codes = new_ids[ids][kept], np.ascontiguousarray(codes[kept])
        if len(kept_ids):
            index.invlists.add_entries(
                number, len(kept_ids), faiss.swig_ptr(kept_ids), faiss.swig_ptr(kept_codes)
            )
    index.ntotal = len(rows_N)


def _entries(lists: Any, number: int, code_size: int) -> tuple[Rows, NDArray[np.uint8]]:
    size = lists.list_size(number)
    if not size:
        return np.empty(0, np.int64), np.empty((0, code_size), np.uint8)
    ids = faiss.rev_swig_ptr(lists.get_ids(number), size).copy()
    codes = faiss.rev_swig_ptr(lists.get_codes(number), size * code_size).copy()
    return ids, codes.reshape(size, code_size)
