"""Clusters of users and items at once, from who took what: each item's cluster, and so that of who takes it.

Dhillon, "Co-clustering Documents and Words Using Bipartite Spectral Graph Partitioning" (KDD 2001): k-means
over users and items in the singular vectors of the graph, both sides normalised.

Legend: U = users, N = items, L = singular vectors, V = vectors of the iteration.
"""

import math
from typing import Any

import faiss as faiss_module
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.sparse_rows import Ints, SparseRows

faiss: Any = faiss_module
"""Its stubs leave out k-means."""

_MORE, _ROUNDS = 4, 20
"""Vectors beside those wanted, and rounds of the iteration, that make the wanted ones exact enough."""


def co_clusters(like_UN: SparseRows, *, clusters: int, seed: int = 0) -> Ints:
    """Return the cluster of each item [N], counted from 0; -1 where nobody took it.

    Equal seeds give equal clusters. Raises ValueError where there are fewer users and items than clusters.
    """
    taken_N = np.bincount(like_UN.column_E, minlength=like_UN.width) > 0
    if int(taken_N.sum()) + len(like_UN) < clusters:
        raise ValueError(f"{clusters} clusters need as many users and items")
    user_UL, item_NL = _singular_vectors(like_UN, 1 + max(1, math.ceil(math.log2(clusters))), seed)
    points = np.ascontiguousarray(np.concatenate([user_UL, item_NL[taken_N]]), np.float32)
    means = faiss.Kmeans(
        points.shape[1], clusters, niter=30, nredo=8, seed=seed + 1, min_points_per_centroid=1
    )
    means.train(points)
    found = np.full(like_UN.width, -1, np.int64)
    found[taken_N] = means.index.search(points[len(user_UL) :], 1)[1][:, 0]
    return found


def _singular_vectors(
    like_UN: SparseRows, count: int, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return users [U, L] and items [N, L] in all but the first of the singular vectors.

    The first tells how much is taken, and nothing of what goes together.
    """
    row_E = torch.from_numpy(like_UN.entry_rows)
    column_E, value_E = torch.from_numpy(like_UN.column_E), torch.from_numpy(like_UN.value_E)
    scale_U = _inverse_root(torch.bincount(row_E, weights=value_E, minlength=len(like_UN)))
    scale_N = _inverse_root(torch.bincount(column_E, weights=value_E, minlength=like_UN.width))
    graph_UN = torch.sparse_coo_tensor(
        torch.stack([row_E, column_E]),
        value_E * scale_U[row_E] * scale_N[column_E],
        (len(like_UN), like_UN.width),
        check_invariants=False,
    ).coalesce()
    generator = torch.Generator().manual_seed(seed)
    vector_NV = torch.randn(like_UN.width, count + _MORE, generator=generator, dtype=torch.float64)
    for _ in range(_ROUNDS):
        vector_NV = torch.linalg.qr(graph_UN.T @ (graph_UN @ vector_NV)).Q
    left_UL, _, right_LV = torch.linalg.svd(graph_UN @ vector_NV, full_matrices=False)
    item_NL = vector_NV @ right_LV.T
    kept = slice(1, count)
    return (
        (scale_U.unsqueeze(1) * left_UL[:, kept]).to(torch.float32).numpy(),
        (scale_N.unsqueeze(1) * item_NL[:, kept]).to(torch.float32).numpy(),
    )


def _inverse_root(degree: Tensor) -> Tensor:
    return torch.where(degree > 0, degree.clamp(min=1e-12).rsqrt(), 0.0)
