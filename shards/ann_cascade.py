"""Two models of one search, one after the other: the first finds neighbours, the second puts them in order.

The cascade of Huang et al., "Embedding-based Retrieval in Facebook Search" (KDD 2020, arXiv 2006.11632,
section 6.2): the second model looks only at what the first one found. A query has the vectors of both, one
behind the other.

Legend: D = width of both vectors together, E = width of the second, N = items, F = found first, K = found.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.ann_index import AnnIndex
from shards.candidates import Floats
from shards.errors import MismatchedBundle
from shards.forward_index import Mask
from shards.npy import read_array

SECOND_FILE = "second_vectors.npy"
"""The second model's item vectors: float32 [N, E], in the order of the items."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnCascade:
    """The first model's index and the second model's vectors [N, E]; `first` neighbours are put in order."""

    index: AnnIndex
    second_NE: Floats
    first: int

    def __len__(self) -> int:
        return len(self.index)

    @property
    def exact(self) -> bool:
        """Return whether the first model's index compares every vector."""
        return self.index.exact

    def exactly(self) -> "AnnCascade":
        """Return the cascade over the first model's exact neighbours."""
        return replace(self, index=self.index.exactly())

    @property
    def width(self) -> int:
        """Return D."""
        return self.index.width + int(self.second_NE.shape[1])

    def search(
        self, vector_1D: Floats, k: int, allowed_N: Mask | None = None
    ) -> tuple[Floats, NDArray[np.int64]]:
        """Return the second model's scores [K] and rows [K] of the first model's neighbours, best first."""
        cut = self.index.width
        first_1D = np.ascontiguousarray(vector_1D[:, :cut])
        _, row_F = self.index.search(first_1D, max(self.first, k), allowed_N)
        score_F = self.second_NE[row_F] @ vector_1D[0, cut:]
        order = np.lexsort((row_F, -score_F))[:k]
        return score_F[order], row_F[order]


def open_cascade(index: AnnIndex, path: Path, first: int) -> AnnCascade:
    """Read the second model's vectors; BundleError where they cannot be read or do not fit the index."""
    second_NE = read_array(path)
    if second_NE.ndim != 2 or second_NE.dtype != np.float32 or len(second_NE) != len(index):
        raise MismatchedBundle(path.name, f"is no float32 vector of each of {len(index)} items")
    return AnnCascade(index=index, second_NE=second_NE, first=first)
