"""Puts items into clusters by their vectors: spherical k-means, by FAISS.

Legend: C = clusters, D = width of a vector, N = items.
"""

from typing import Any

import faiss as faiss_module
import numpy as np

from shards.candidates import Floats
from shards.item_clusters import ItemClusters

faiss: Any = faiss_module
"""Its stubs leave out k-means."""

_ROUNDS = 20


def cluster(vector_ND: Floats, count: int, *, seed: int = 0) -> ItemClusters:
    """Return at most `count` clusters of the items; equal seeds give equal ones.

    An item belongs to the centroid with the highest inner product. Dhillon and Modha, 2001.
    """
    means = faiss.Kmeans(
        vector_ND.shape[1],
        min(count, len(vector_ND)),
        niter=_ROUNDS,
        seed=seed + 1,
        spherical=True,
        min_points_per_centroid=1,
    )
    means.train(vector_ND)
    _, cluster_N1 = means.index.search(vector_ND, 1)
    return ItemClusters(centroid_CD=means.centroids, cluster_N=cluster_N1[:, 0].astype(np.int32))
