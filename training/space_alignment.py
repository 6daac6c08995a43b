"""Maps between the item spaces of two shops: from like titles, and from people who shop at both.

Bianchi et al. (arXiv 2007.14906) align by the images of items first, then by sessions that cross shops;
titles stand for images here.

Legend: A = anchors, N = items, D = width, W = words.
"""

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.words import words
from training.sparse_rows import SparseRows, sparse_rows

_LIKE = 0.3
"""The cosine of two titles from which they are anchors."""


def content_map(vector_ND: Tensor, items: pa.Table, source_N: Tensor, target_N: Tensor) -> Tensor:
    """Return the orthogonal map [D, D] of source items to the target items of the likest titles.

    Both masks [N] leave out items that have no vector. Source: Schönemann, "A generalized solution of the
    orthogonal Procrustes problem", 1966.
    """
    source_A, target_A = anchors(items, source_N.numpy(), target_N.numpy())
    cross_DD = vector_ND[source_A].T @ vector_ND[target_A]
    left_DD, _, right_DD = torch.linalg.svd(cross_DD)
    map_DD: Tensor = left_DD @ right_DD
    return map_DD


def anchors(
    items: pa.Table, source_N: NDArray[np.bool_], target_N: NDArray[np.bool_]
) -> tuple[Tensor, Tensor]:
    """Return rows of source items, and for each the target item of the likest title, by TF-IDF."""
    title_NW = _titles(items)
    title_WN = title_NW.transposed()
    found = []
    for row in np.flatnonzero(source_N).tolist():
        like_N = np.where(target_N, title_WN.weighted_sum(*title_NW.row(row)), 0.0)
        best = int(like_N.argmax())
        if like_N[best] >= _LIKE:
            found.append((row, best))
    pairs = torch.tensor(found, dtype=torch.int64).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _titles(items: pa.Table) -> SparseRows:
    """Return the words of titles by TF-IDF, rows of unit length [N, W]."""
    found = [sorted(set(words(title))) for title in items.column("title").to_pylist()]
    numbers: dict[str, int] = {}
    column_E = np.array([numbers.setdefault(w, len(numbers)) for title in found for w in title], np.int64)
    row_E = np.repeat(np.arange(len(found)), [len(title) for title in found])
    rarity_W = np.log(len(found) / np.bincount(column_E, minlength=len(numbers)))
    value_E = rarity_W[column_E]
    norm_N = np.sqrt(np.bincount(row_E, weights=value_E**2, minlength=len(found)))
    return sparse_rows(
        row_E,
        column_E,
        value_E / np.maximum(norm_N, 1e-12)[row_E],
        rows=len(found),
        width=len(numbers),
    )
