"""Ward's clustering of a few vectors, cut at a distance.

Two clusters whose union adds least to the sum of squares are merged first; nearest-neighbour chains find the
same merges without looking for the least of all (Murtagh and Contreras, 2012).

Legend: N = vectors, D = width.
"""

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Floats


def ward_labels(vector_ND: Floats, cut: float) -> NDArray[np.int64]:
    """Return the cluster of each vector [N], from 0 in the order of their first members.

    Clusters whose distance is above `cut` stay apart: √(2 |A| |B| / (|A| + |B|)) times that of their means,
    which for two vectors is how far apart they are.
    """
    squared_NN = _squared_distances(vector_ND)
    size_N = np.ones(len(vector_ND))
    label_N = np.arange(len(vector_ND))
    open_N = np.ones(len(vector_ND), np.bool_)
    chain: list[int] = []
    while open_N.any():
        chain = chain or [int(open_N.argmax())]
        a = chain[-1]
        b = int(squared_NN[a].argmin())
        before = chain[-2] if len(chain) > 1 else -1
        if before < 0 or squared_NN[a, b] < squared_NN[a, before]:
            if squared_NN[a, b] <= cut**2:
                chain.append(b)
            else:
                # Nothing is near enough to it, and no merge of others brings them nearer.
                _close(squared_NN, open_N, chain.pop())
            continue
        _merge(squared_NN, size_N, a, before)
        label_N[label_N == a] = before
        open_N[a] = False
        del chain[-2:]
    return np.unique(_first_members(label_N), return_inverse=True)[1]


def _squared_distances(vector_ND: Floats) -> NDArray[np.float64]:
    """Return all squared distances [N, N], of a vector to itself infinite."""
    wide_ND = vector_ND.astype(np.float64)
    norm_N = (wide_ND**2).sum(axis=1)
    squared_NN: NDArray[np.float64] = np.maximum(
        norm_N[:, np.newaxis] + norm_N - 2 * wide_ND @ wide_ND.T, 0.0
    )
    np.fill_diagonal(squared_NN, np.inf)
    return squared_NN


def _close(squared_NN: NDArray[np.float64], open_N: NDArray[np.bool_], a: int) -> None:
    squared_NN[a] = squared_NN[:, a] = np.inf
    open_N[a] = False


def _merge(squared_NN: NDArray[np.float64], size_N: NDArray[np.float64], a: int, into: int) -> None:
    """Have `into` stand for both (the update of Lance and Williams for Ward's criterion)."""
    united = (
        (size_N[a] + size_N) * squared_NN[a]
        + (size_N[into] + size_N) * squared_NN[into]
        - size_N * squared_NN[a, into]
    ) / (size_N[a] + size_N[into] + size_N)
    size_N[into] += size_N[a]
    squared_NN[into] = squared_NN[:, into] = united
    squared_NN[a] = squared_NN[:, a] = np.inf
    squared_NN[into, into] = np.inf


def _first_members(label_N: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each vector the first one of its cluster."""
    _, first, at_N = np.unique(label_N, return_index=True, return_inverse=True)
    return first[at_N]
