"""Nearest neighbours by inner product: a FAISS index of any kind that can filter, whose ids are item rows.

Legend: D = width of a vector, N = items, K = neighbours found.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss as faiss_module
import numpy as np
from numpy.typing import NDArray

from shards.batching import Batches
from shards.candidates import Floats
from shards.errors import CorruptBundle, MismatchedBundle
from shards.forward_index import Mask

faiss: Any = faiss_module
"""Its stubs leave out most search parameters."""

GPU_MAX_K = 2048
"""FAISS finds no more than this on a GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnKnobs:
    """How far a search looks, by the kind of index; 0 leaves what the index says itself.

    `nprobe` inverted lists are looked at, `k_factor` times the neighbours wanted are compared exactly by an
    index that refines, `ef_search` vertices of a graph are kept in view.
    """

    nprobe: int = 0
    k_factor: float = 0.0
    ef_search: int = 0

    def __post_init__(self) -> None:
        if min(self.nprobe, self.k_factor, self.ef_search) < 0:
            raise ValueError("nprobe, k_factor and ef_search must not be negative")


_AS_WRITTEN = AnnKnobs()


class AnnIndex:
    """A FAISS index on the CPU, with a copy on the GPU for searches without filter where there is one."""

    def __init__(
        self, index: Any, device: str = "cpu", *, exhaustive: bool = False, whole: Any = None
    ) -> None:
        self._index = index
        self._whole = whole  # A part is freed with what it is a part of.
        self._exhaustive = exhaustive
        copy = _gpu_copy(index, device)
        # FAISS searches a GPU from one thread at a time, and many vectors in the time of one.
        self._on_gpu = None if copy is None else Batches(functools.partial(_search_all, copy))

    @classmethod
    def open(cls, path: Path, device: str = "cpu", knobs: AnnKnobs = _AS_WRITTEN) -> "AnnIndex":
        """Read an index and set its knobs.

        CorruptBundle where the file is none, MismatchedBundle where it cannot filter.
        """
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise CorruptBundle(path.name, f"cannot be read: {error}") from error
        if index.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise MismatchedBundle(path.name, "is not by inner product")
        _check_filters(index, path.name)
        set_knobs(index, knobs)
        return cls(index, device)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def width(self) -> int:
        """Return D."""
        return int(self._index.d)

    @property
    def exact(self) -> bool:
        """Return whether a search compares every stored vector."""
        return self._exhaustive or isinstance(_innermost(self._index), faiss.IndexFlat)

    def exactly(self) -> "AnnIndex":
        """Return an index that compares every vector which this one stores; it shares them, on the CPU.

        A graph behind a transformation is searched as far as it can be instead.
        """
        index = faiss.downcast_index(self._index)
        if isinstance(index, faiss.IndexRefine):
            return AnnIndex(faiss.downcast_index(index.refine_index), exhaustive=True, whole=index)
        if isinstance(index, faiss.IndexHNSW):
            return AnnIndex(faiss.downcast_index(index.storage), exhaustive=True, whole=index)
        return AnnIndex(index, exhaustive=True)

    def make_readable(self) -> None:
        """Prepare for `vectors_at`; MismatchedBundle where the index keeps nothing to read vectors from."""
        _map_rows(self._index)
        try:
            self.vectors_at(np.arange(min(len(self), 1)))
        except RuntimeError as error:
            raise MismatchedBundle("index.faiss", "is of a kind that vectors cannot be read from") from error

    def vectors_at(self, rows: NDArray[np.int64]) -> Floats:
        """Return the vectors [K, D] at these rows [K], as far as their codes tell them."""
        if not len(rows):
            return np.empty((0, self.width), np.float32)
        return self._index.reconstruct_batch(np.ascontiguousarray(rows))  # type: ignore[no-any-return]

    def search(
        self, vector_1D: Floats, k: int, allowed_N: Mask | None = None
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Return scores [K] and rows [K] of the nearest vectors, best first, ties by row.

        K is `k` or, where there are fewer, every allowed item: an index that looks at a part of
        itself looks at the whole when that part held too few.
        """
        allowed_count = len(self) if allowed_N is None else int(allowed_N.sum())
        wanted = min(k, allowed_count)
        if wanted == 0:
            return np.empty(0, np.float32), np.empty(0, np.int64)
        selector = None if allowed_N is None else _selector(allowed_N)
        # FAISS keeps any of those that tie for the last place: one more shows whether there are such.
        found = min(wanted + 1, allowed_count)
        scores, rows = self._nearest(vector_1D, found, wanted, selector)
        while len(rows) == found < allowed_count and scores[-1] == scores[wanted - 1]:
            found = min(2 * found, allowed_count)
            scores, rows = self._nearest(vector_1D, found, wanted, selector)
        order = np.lexsort((rows, -scores))[:wanted]
        return scores[order], rows[order]

    def _nearest(
        self, vector_1D: Floats, k: int, least: int, selector: Any
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Return `k` neighbours best first, or at least `least` where looking further finds them."""
        if self._exhaustive:
            return _search(self._index, vector_1D, k, selector, exhaustive=True)
        if selector is None and self._on_gpu is not None and k <= GPU_MAX_K:
            return self._on_gpu.answer((vector_1D, k))
        scores, rows = _search(self._index, vector_1D, k, selector, exhaustive=False)
        if len(rows) < least:
            scores, rows = _search(self._index, vector_1D, k, selector, exhaustive=True)
        return scores, rows


def set_knobs(index: Any, knobs: AnnKnobs) -> None:
    """Set how far searches of an index, and of the indexes inside it, look."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        set_knobs(index.index, knobs)
    elif isinstance(index, faiss.IndexRefine):
        index.k_factor = knobs.k_factor or index.k_factor
        set_knobs(index.base_index, knobs)
    elif isinstance(index, faiss.IndexIVF):
        index.nprobe = min(knobs.nprobe or index.nprobe, index.nlist)
    elif isinstance(index, faiss.IndexHNSW):
        index.hnsw.efSearch = knobs.ef_search or index.hnsw.efSearch


def _innermost(index: Any) -> Any:
    """Return the index behind transformations."""
    index = faiss.downcast_index(index)
    return _innermost(index.index) if isinstance(index, faiss.IndexPreTransform) else index


def _search(
    index: Any, vector_1D: Floats, k: int, selector: Any, *, exhaustive: bool
) -> tuple[Floats, NDArray[np.int64]]:
    return _found(*index.search(vector_1D, k, params=_parameters(index, selector, exhaustive=exhaustive)))


def _search_all(index: Any, asked: Sequence[tuple[Floats, int]]) -> list[tuple[Floats, NDArray[np.int64]]]:
    """Return what each vector [1, D] finds, as many as it wants."""
    score_BK, row_BK = index.search(
        np.concatenate([vector_1D for vector_1D, _ in asked]), max(k for _, k in asked)
    )
    return [_found(score_BK[b : b + 1, :k], row_BK[b : b + 1, :k]) for b, (_, k) in enumerate(asked)]


def _found(score_1K: Floats, row_1K: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    """Return the only query's neighbours without the places that FAISS left empty."""
    found_K = row_1K[0] >= 0
    return score_1K[0][found_K], row_1K[0][found_K]


def _selector(allowed_N: Mask) -> Any:
    return faiss.IDSelectorBitmap(np.packbits(allowed_N, bitorder="little"))


def _parameters(index: Any, selector: Any, *, exhaustive: bool) -> Any:
    """Return what tells an index, and the indexes inside it, whom to look for and how far to look."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        inner = _parameters(index.index, selector, exhaustive=exhaustive)
        return faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexRefine):
        inner = _parameters(index.base_index, selector, exhaustive=exhaustive)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=index.nlist if exhaustive else index.nprobe)
    if isinstance(index, faiss.IndexHNSW):
        ef_search = index.ntotal if exhaustive else index.hnsw.efSearch
        return faiss.SearchParametersHNSW(sel=selector, efSearch=ef_search)
    return faiss.SearchParameters(sel=selector)


def _check_filters(index: Any, file: str) -> None:
    nothing = np.zeros(index.ntotal, dtype=np.bool_)
    try:
        _search(index, np.zeros((1, index.d), np.float32), 1, _selector(nothing), exhaustive=False)
    except RuntimeError as error:
        raise MismatchedBundle(file, "is of a kind that cannot filter: use Flat, IVF or HNSW") from error


def _map_rows(index: Any) -> None:
    """Have inverted lists, of an index or of those inside it, say where each row is."""
    index = faiss.downcast_index(index)
    if isinstance(index, faiss.IndexPreTransform):
        _map_rows(index.index)
    elif isinstance(index, faiss.IndexRefine):
        _map_rows(index.base_index)
    elif isinstance(index, faiss.IndexIVF):
        index.make_direct_map()


def _gpu_copy(index: Any, device: str) -> Any:
    if not device.startswith("cuda") or not hasattr(faiss, "StandardGpuResources"):
        return None
    ordinal = int(device.partition(":")[2] or 0)
    return faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), ordinal, index)
