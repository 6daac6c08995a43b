"""What an evaluation found: the rank of every relevant item, the figures of that, and how two runs differ.

Legend: Q = queries.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from training.evaluation import metrics

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

DEPTH = 100
"""Lists are judged to this depth; an item further down counts as not found."""

BM25 = "BM25"
"""A lexical channel without its prior, where it has one; offline only, as no shard serves it."""
HYBRID = "hybrid"
PRE_RANKED = "hybrid + pre-rank"
RANKED = "hybrid + pre-rank + rank"
DIVERSIFIED = "page, made diverse"
"""Rankings of the whole cascade; those of channels alone have the channel's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranks:
    """Where each query's relevant item stood in each ranking.

    `by_ranking` maps the name of a ranking ("lexical", "hybrid", …) to ranks [Q]: 1 is best, 0 is not
    among the first `DEPTH`. `with_history` [Q] tells the queries of users who had done something before.
    """

    query_ids: tuple[str, ...]
    with_history: Bools
    by_ranking: Mapping[str, Ints]

    def __post_init__(self) -> None:
        for name, ranks in {"with_history": self.with_history, **self.by_ranking}.items():
            if ranks.shape != (len(self.query_ids),):
                raise ValueError(f"{name} has shape {ranks.shape}, not ({len(self.query_ids)},)")


def joined(parts: Sequence[Ranks]) -> Ranks:
    """Return the ranks of several sets of queries as those of one; there is at least one set."""
    return Ranks(
        query_ids=tuple(chain.from_iterable(part.query_ids for part in parts)),
        with_history=np.concatenate([part.with_history for part in parts]),
        by_ranking={
            name: np.concatenate([part.by_ranking[name] for part in parts]) for name in parts[0].by_ranking
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Means over some queries; NaN over none. `ndcg_10_error` is half the 95 % confidence interval."""

    queries: int
    recall_10: float
    recall_100: float
    mrr_10: float
    ndcg_10: float
    ndcg_10_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One ranking's figures, over all queries and by whether the user had a history."""

    ranking: str
    overall: Figures
    with_history: Figures
    without_history: Figures


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """A metric's mean in one run, by how much that is above another run's, and half the 95 % interval of it.

    Both answered the same queries, so the interval is that of the differences by query.
    """

    mean: float
    gain: float
    gain_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far two runs over the same queries are apart in one ranking.

    `largest_figure` is the largest gap between any two of their overall figures, `moved` the share of
    queries whose relevant item has another rank, `moved_far` that of ranks more than one place apart.
    """

    ranking: str
    largest_figure: float
    moved: float
    moved_far: float


def rank_of(item_ids: tuple[str, ...], relevant: str) -> int:
    """Return the place of the relevant item in a list, 1 for the first, 0 if not within `DEPTH`."""
    head = item_ids[:DEPTH]
    return head.index(relevant) + 1 if relevant in head else 0


def summarise(ranks: Ranks) -> tuple[Row, ...]:
    """Return one row of figures per ranking, in the order they are held."""
    everyone = np.ones(len(ranks.query_ids), np.bool_)
    return tuple(
        Row(
            ranking=name,
            overall=figures(rank_Q[everyone]),
            with_history=figures(rank_Q[ranks.with_history]),
            without_history=figures(rank_Q[~ranks.with_history]),
        )
        for name, rank_Q in ranks.by_ranking.items()
    )


def figures(rank_Q: Ints) -> Figures:
    """Return the figures of these ranks; one item is relevant per query."""
    if not len(rank_Q):
        nan = float("nan")
        return Figures(queries=0, recall_10=nan, recall_100=nan, mrr_10=nan, ndcg_10=nan, ndcg_10_error=nan)
    hit_QK, one_Q = metrics.hits_of_ranks(rank_Q, DEPTH), np.ones_like(rank_Q)
    ndcg_Q = metrics.ndcg_at(hit_QK, one_Q, 10)
    return Figures(
        queries=len(rank_Q),
        recall_10=float(metrics.recall_at(hit_QK, one_Q, 10).mean()),
        recall_100=float(metrics.recall_at(hit_QK, one_Q, 100).mean()),
        mrr_10=float(metrics.mrr_at(hit_QK, 10).mean()),
        ndcg_10=float(ndcg_Q.mean()),
        ndcg_10_error=float(1.96 * ndcg_Q.std() / np.sqrt(len(ndcg_Q))),
    )


def gain(before_Q: Ints, after_Q: Ints, metric: str) -> Gain:
    """Return what "recall_10", "recall_100", "mrr_10" or "ndcg_10" gained from one run to another."""
    value_Q = _values(after_Q, metric)
    gain_Q = value_Q - _values(before_Q, metric)
    error = 1.96 * float(gain_Q.std()) / float(np.sqrt(max(len(gain_Q), 1)))
    return Gain(mean=float(value_Q.mean()), gain=float(gain_Q.mean()), gain_error=error)


def _values(rank_Q: Ints, metric: str) -> NDArray[np.float64]:
    """Return the metric of each query [Q]."""
    hit_QK, one_Q = metrics.hits_of_ranks(rank_Q, DEPTH), np.ones_like(rank_Q)
    name, _, depth = metric.rpartition("_")
    match name:
        case "recall":
            return metrics.recall_at(hit_QK, one_Q, int(depth))
        case "mrr":
            return metrics.mrr_at(hit_QK, int(depth))
        case "ndcg":
            return metrics.ndcg_at(hit_QK, one_Q, int(depth))
    raise ValueError(f"{metric!r} is no metric of ranks")


def recall_by_depth(rank_Q: Ints) -> NDArray[np.float64]:
    """Return the share of queries whose item is among the first 1, 2, … `DEPTH` [DEPTH]."""
    counts = np.bincount(rank_Q, minlength=DEPTH + 1)[1 : DEPTH + 1]
    shares: NDArray[np.float64] = np.cumsum(counts) / max(len(rank_Q), 1)
    return shares


def compare(left: Ranks, right: Ranks) -> tuple[Difference, ...]:
    """Return how two runs differ in each ranking that both have.

    Raises ValueError if they are not over the same queries in the same order.
    """
    if left.query_ids != right.query_ids:
        raise ValueError("only runs over the same queries can be compared")
    shared = [name for name in left.by_ranking if name in right.by_ranking]
    return tuple(_difference(name, left.by_ranking[name], right.by_ranking[name]) for name in shared)


def _difference(ranking: str, left_Q: Ints, right_Q: Ints) -> Difference:
    if not len(left_Q):
        return Difference(ranking=ranking, largest_figure=0.0, moved=0.0, moved_far=0.0)
    ours, theirs = figures(left_Q), figures(right_Q)
    names = ("recall_10", "recall_100", "mrr_10", "ndcg_10")
    # Not found stands just below the last place.
    gap_Q = np.abs(np.where(left_Q, left_Q, DEPTH + 1) - np.where(right_Q, right_Q, DEPTH + 1))
    return Difference(
        ranking=ranking,
        largest_figure=max(abs(getattr(ours, name) - getattr(theirs, name)) for name in names),
        moved=float((gap_Q > 0).mean()),
        moved_far=float((gap_Q > 1).mean()),
    )


def as_json(rows: tuple[Row, ...]) -> list[dict[str, object]]:
    """Return the rows as plain dictionaries; NaN, which JSON lacks, becomes null."""
    plain: list[dict[str, object]] = []
    for row in rows:
        groups = {k: v for k, v in asdict(row).items() if k != "ranking"}
        plain.append(
            {
                "ranking": row.ranking,
                **{group: {k: _or_null(v) for k, v in held.items()} for group, held in groups.items()},
            }
        )
    return plain


def _or_null(value: float) -> float | None:
    return None if np.isnan(value) else value


def sample_rows(query_ids: tuple[str, ...], limit: int) -> Ints:
    """Return the rows of a sample of at most `limit` queries, in order; 0 takes all.

    The same ids give the same sample everywhere: those with the lowest CRC-32, ties by row.
    """
    if not 0 < limit < len(query_ids):
        return np.arange(len(query_ids))
    digests = np.array([zlib.crc32(query_id.encode()) for query_id in query_ids])
    return np.sort(np.argsort(digests, kind="stable")[:limit])
