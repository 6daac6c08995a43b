"""Metrics of ranked lists and of predicted probabilities, vectorised over queries or examples.

Ranking metrics take `hit_QK`, whether the item at each place of a list is relevant, best place first, and
return one value per query, so that the caller can average over any group of queries.

Legend: Q = queries, K = places of the list, N = examples.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


def hits_of_ranks(rank_Q: Ints, depth: int) -> Bools:
    """Return `hit_QK` [Q, depth] for one relevant item per query at this rank; 1 is best, 0 is not found."""
    hits: Bools = rank_Q[:, None] == np.arange(1, depth + 1)
    return hits


def recall_at(hit_QK: Bools, relevant_Q: Ints, k: int) -> Floats:
    """Return the share of each query's relevant items among the first k; 0 where nothing is relevant."""
    found_Q = _cut(hit_QK, k).sum(axis=1)
    share_Q: Floats = found_Q / np.maximum(relevant_Q, 1)
    return share_Q


def hit_rate_at(hit_QK: Bools, k: int) -> Floats:
    """Return 1 for each query with a relevant item among the first k, else 0."""
    found_Q: Bools = np.asarray(_cut(hit_QK, k).any(axis=1))
    return found_Q.astype(np.float64)


def mrr_at(hit_QK: Bools, k: int) -> Floats:
    """Return 1 / rank of each query's first relevant item, 0 if that is not among the first k."""
    cut = _cut(hit_QK, k)
    return np.where(cut.any(axis=1), 1.0 / (cut.argmax(axis=1) + 1), 0.0)


def ndcg_at(hit_QK: Bools, relevant_Q: Ints, k: int) -> Floats:
    """Return each query's normalised discounted cumulative gain with binary relevance.

    The ideal list has min(k, relevant) hits in front. Source: Järvelin and Kekäläinen, TOIS 2002.
    """
    cut = _cut(hit_QK, k)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal_Q = np.concatenate([[0.0], np.cumsum(discount)])[np.clip(relevant_Q, 0, k)]
    gain_Q: Floats = cut @ discount[: cut.shape[1]]
    ndcg_Q: Floats = np.divide(gain_Q, ideal_Q, out=np.zeros_like(gain_Q), where=ideal_Q > 0)
    return ndcg_Q


def p90_items(lists: Sequence[Sequence[str]], k: int) -> int:
    """Return how few items make up 90 % of the first k places of all lists: many are good for the catalogue.

    As a share of the catalogue it is P90 coverage. Source: PinnerFormer, KDD 2022, section 4.2.
    """
    counts = Counter(chain.from_iterable(found[:k] for found in lists))
    filled = np.cumsum(sorted(counts.values(), reverse=True))
    return int(np.searchsorted(filled, 0.9 * filled[-1])) + 1 if len(filled) else 0


def auc(label_N: Bools, score_N: Floats) -> float:
    """Return the chance that a positive example scores above a negative one, ties half; NaN for one class."""
    positives = int(label_N.sum())
    negatives = len(label_N) - positives
    if not positives or not negatives:
        return float("nan")
    rank_sum = float(_average_ranks(score_N)[label_N].sum())
    return (rank_sum - positives * (positives + 1) / 2) / (positives * negatives)


def gauc(label_N: Bools, score_N: Floats, group_N: Ints) -> float:
    """Return the AUC within each group, averaged by group size; groups of one class are left out.

    A group is a user or a query. NaN if no group has both classes. Source: Zhu et al., "Optimized Cost
    per Click in Taobao Display Advertising", KDD 2017, section 5.
    """
    order = np.argsort(group_N, kind="stable")
    bounds = np.flatnonzero(np.diff(group_N[order])) + 1
    groups = [rows for rows in np.split(order, bounds) if 0 < label_N[rows].sum() < len(rows)]
    if not groups:
        return float("nan")
    values = [auc(label_N[rows], score_N[rows]) for rows in groups]
    return float(np.average(values, weights=[len(rows) for rows in groups]))


def log_loss(label_N: Bools, probability_N: Floats) -> float:
    """Return the mean negative log-likelihood in nats; probabilities count as at least 1e-12 from 0 and 1."""
    clipped = np.clip(probability_N.astype(np.float64), 1e-12, 1 - 1e-12)
    return float(-np.where(label_N, np.log(clipped), np.log1p(-clipped)).mean())


def expected_calibration_error(label_N: Bools, probability_N: Floats, *, bins: int = 10) -> float:
    """Return the mean gap between predicted and observed rate over equally wide bins, weighted by size.

    Source: Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities", AAAI 2015.
    """
    bin_N = np.minimum((probability_N * bins).astype(np.int64), bins - 1)
    predicted = np.bincount(bin_N, weights=probability_N, minlength=bins)
    observed = np.bincount(bin_N, weights=label_N.astype(np.float64), minlength=bins)
    return float(np.abs(predicted - observed).sum() / len(label_N))


def _cut(hit_QK: Bools, k: int) -> Bools:
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    return hit_QK[:, :k]


def _average_ranks(score_N: Floats) -> Floats:
    """Return the rank of each score, 1 for the lowest, equal scores sharing their mean rank."""
    _, code_N, counts = np.unique(score_N, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    mean_rank: Floats = ends - (counts - 1) / 2
    return mean_rank[code_N]
