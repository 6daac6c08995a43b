"""Search spread over clusters of items: the nearest centroids, and a share of the list from each.

Source: eBay's personalised embedding-based retrieval, arXiv 2102.06156. Plain search may find what is all
alike.

File: item_clusters.npz with "centroid" float32 [C, D] and "cluster" int32 [N], the cluster of each item.
Legend: C = clusters, D = width of a vector, N = items.
"""

import zipfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shards.ann_index import AnnIndex
from shards.candidates import Floats
from shards.errors import CorruptBundle, MismatchedBundle
from shards.forward_index import Mask
from shards.lookups import Found, equal_sizes, joined

CLUSTERS_FILE = "item_clusters.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemClusters:
    """The clusters of a catalogue."""

    centroid_CD: Floats
    cluster_N: NDArray[np.int32]

    def __post_init__(self) -> None:
        if self.centroid_CD.ndim != 2 or self.cluster_N.ndim != 1:
            raise ValueError("centroid must be [C, D] and cluster [N]")
        if not np.isfinite(self.centroid_CD).all():
            raise ValueError("a centroid is not finite")
        known_N = (self.cluster_N >= 0) & (self.cluster_N < len(self.centroid_CD))
        if not known_N.all():
            raise ValueError(f"an item is in none of {len(self.centroid_CD)} clusters")

    def nearest(self, vector_D: Floats, count: int, allowed_N: Mask | None = None) -> NDArray[np.intp]:
        """Return at most `count` clusters that hold allowed items, those of the best centroids first."""
        cluster_N = self.cluster_N if allowed_N is None else self.cluster_N[allowed_N]
        size_C = np.bincount(cluster_N, minlength=len(self.centroid_CD))
        score_C = self.centroid_CD @ vector_D
        order = np.lexsort((-score_C, size_C == 0))
        return order[: min(count, int((size_C > 0).sum()))]

    def save(self, path: Path) -> None:
        """Write the file."""
        np.savez(path, centroid=self.centroid_CD, cluster=self.cluster_N)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusteredIndex:
    """An index whose answers the `asked` nearest clusters share."""

    index: AnnIndex
    clusters: ItemClusters
    asked: int

    def __len__(self) -> int:
        return len(self.index)

    @property
    def exact(self) -> bool:
        """Return whether the index compares every vector."""
        return self.index.exact

    def exactly(self) -> "ClusteredIndex":
        """Return the same clusters over an exact search."""
        return replace(self, index=self.index.exactly())

    @property
    def width(self) -> int:
        """Return D."""
        return self.index.width

    def search(self, vector_1D: Floats, k: int, allowed_N: Mask | None = None) -> Found:
        """Return scores and rows of `k` allowed items, an equal share from each cluster, best first.

        Nearer clusters give one more where shares are uneven. What a cluster has not is made up for by the
        best items of all.
        """
        nearest = self.clusters.nearest(vector_1D[0], self.asked, allowed_N).tolist()
        shares = []
        for cluster, size in zip(nearest, equal_sizes(k, max(len(nearest), 1)), strict=False):
            own_N = self.clusters.cluster_N == cluster
            shares.append(
                self.index.search(vector_1D, size, own_N if allowed_N is None else own_N & allowed_N)
            )
        missing = k - sum(len(rows) for _, rows in shares)
        return joined(shares, [self.index.search(vector_1D, k, allowed_N)] if missing else [], k)


def open_clustered(index: AnnIndex, path: Path, asked: int) -> ClusteredIndex:
    """Read the clusters of the items of an index; BundleError where they cannot be read or do not fit."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            clusters = ItemClusters(
                centroid_CD=np.asarray(arrays["centroid"], np.float32),
                cluster_N=np.asarray(arrays["cluster"], np.int32),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptBundle(path.name, f"cannot be read: {error}") from error
    if clusters.centroid_CD.shape[1] != index.width or len(clusters.cluster_N) != len(index):
        raise MismatchedBundle(path.name, f"does not fit {len(index)} vectors of width {index.width}")
    return ClusteredIndex(index=index, clusters=clusters, asked=asked)
