"""What a user is interested in: clusters of the items that they lately met, each told by one of its items.

Pal et al., "PinnerSage" (KDD 2020, arXiv 2007.03634): Ward's clustering of the last days' items cut at a
distance, the medoid of each cluster, the importance sum(exp(-decay * age)) of what happened in it, and a few
medoids drawn by importance. Computed from the history that comes with a search, so the newest events count.

Legend: H = events, U = distinct items, C = clusters, D = width of a vector.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Floats
from shards.history_rows import MS_PER_DAY, HistoryRows
from shards.ward import ward_labels

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class InterestParams:
    """How a history is cut into interests, and how many of them ask."""

    cut: float = 1.0
    """Clusters that are further apart stay apart; unit vectors at a right angle are 1.41 apart."""
    drawn: int = 3
    """Medoids that ask, drawn by importance anew each day."""
    decay_per_day: float = 0.01
    window_days: float = 90.0
    most_items: int = 200
    """At most so many of the newest items are clustered."""

    def __post_init__(self) -> None:
        if not self.cut > 0:
            raise ValueError("cut must be above 0")
        if self.drawn < 1 or self.most_items < 1:
            raise ValueError("drawn and most_items must be at least 1")
        if self.decay_per_day < 0 or not self.window_days > 0:
            raise ValueError("decay_per_day must not be negative and window_days must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Interests:
    """The medoids of a user's clusters [C], most important first, and how important each is [C]."""

    medoid_C: Rows
    importance_C: NDArray[np.float64]

    def drawn(self, count: int, user_id: str, now_ms: int) -> Rows:
        """Return at most `count` medoids drawn by importance without replacement; equal ones all day."""
        if len(self.medoid_C) <= count:
            return self.medoid_C
        digest = hashlib.blake2b(f"{now_ms // MS_PER_DAY}:{user_id}".encode(), digest_size=8).digest()
        noise_C = np.random.default_rng(int.from_bytes(digest)).gumbel(size=len(self.medoid_C))
        # The best sums of log weights and Gumbel noise are a draw by the weights (Yellott, 1977).
        best = np.argsort(-(np.log(self.importance_C) + noise_C), kind="stable")[:count]
        return self.medoid_C[np.sort(best)]


def interests_of(
    history: HistoryRows, vectors_at: Callable[[Rows], Floats], params: InterestParams
) -> Interests:
    """Return the interests that a history tells; `vectors_at` gives the vectors [U, D] of rows [U]."""
    recent_H = history.ages_days <= params.window_days
    row_H, age_H = history.rows[recent_H], history.ages_days[recent_H]
    row_U = newest_distinct(row_H, params.most_items)
    if not len(row_U):
        return Interests(medoid_C=row_U, importance_C=np.zeros(0))
    kept_H = np.isin(row_H, row_U)
    row_H, weight_H = row_H[kept_H], np.exp(-params.decay_per_day * age_H[kept_H])
    row_U, at_H = np.unique(row_H, return_inverse=True)
    vector_UD = unit(vectors_at(row_U))
    label_U = ward_labels(vector_UD, params.cut)
    importance_C = np.bincount(label_U[at_H], weights=weight_H).astype(np.float64)
    order = np.argsort(-importance_C, kind="stable")
    return Interests(medoid_C=row_U[_medoids(vector_UD, label_U)[order]], importance_C=importance_C[order])


def newest_distinct(row_H: Rows, count: int) -> Rows:
    """Return the `count` items met last, the newest first, each once."""
    row_U, first = np.unique(row_H[::-1], return_index=True)
    return row_U[np.argsort(first)][:count]


def unit(vector_ND: Floats) -> Floats:
    """Return the vectors at length 1; zeros stay."""
    norm_N1 = np.linalg.norm(vector_ND, axis=1, keepdims=True)
    scaled_ND: Floats = np.divide(vector_ND, norm_N1, out=np.zeros_like(vector_ND), where=norm_N1 > 0)
    return scaled_ND


def _medoids(vector_UD: Floats, label_U: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return of each cluster the place of the member with the least squared distances to the others [C]."""
    size_C = np.bincount(label_U)
    mean_CD = np.zeros((len(size_C), vector_UD.shape[1]))
    np.add.at(mean_CD, label_U, vector_UD)
    # The sum of squared distances to all members is smallest for whoever is nearest to their mean.
    far_U = ((vector_UD - (mean_CD / size_C[:, np.newaxis])[label_U]) ** 2).sum(axis=1)
    order = np.lexsort((far_U, label_U))
    return order[np.searchsorted(label_U[order], np.arange(len(size_C)))]
