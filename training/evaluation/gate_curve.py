"""Trigger rate against quality: what is kept of what embedding adds, by which searches open the gate.

Every query is answered twice, with the gate closed and with it open. A policy orders the queries; at a rate
it opens the gate for that share of them, the first in its order. Pure. Legend: Q = queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.evaluation import metrics
from training.evaluation.report import DEPTH, Ints

Floats = NDArray[np.float64]

RECALL, NDCG = "recall_100", "ndcg_10"
FIGURES = (RECALL, NDCG)
"""Recall@100 of the merged candidates and NDCG@10 of the page."""

RATES = tuple(percent / 100 for percent in range(0, 101, 5))
_CONFIDENCE = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Each query's figures with the gate closed and open: by figure, values [Q]."""

    closed: Mapping[str, Floats]
    opened: Mapping[str, Floats]

    @property
    def queries(self) -> int:
        """Return how many there are."""
        return len(self.closed[RECALL])


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """The figures at one trigger rate, and the share of what always opening adds that is kept of each.

    `kept` is NaN where embedding adds nothing.
    """

    rate: float
    figures: Mapping[str, float]
    kept: Mapping[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """The points of one way to choose the searches, by rising rate."""

    name: str
    points: tuple[Point, ...]

    def at(self, rate: float) -> Point:
        """Return the point at, or nearest to, a rate."""
        return min(self.points, key=lambda point: abs(point.rate - rate))


def outcomes_of(ranks_Q4: Ints) -> Outcomes:
    """Return the figures of ranks [Q, 4], 1 is best and 0 is not found.

    The columns: merged with the gate closed, merged with it open, on the page closed, on the page open.
    """
    return Outcomes(
        closed={RECALL: _recall(ranks_Q4[:, 0]), NDCG: _ndcg(ranks_Q4[:, 2])},
        opened={RECALL: _recall(ranks_Q4[:, 1]), NDCG: _ndcg(ranks_Q4[:, 3])},
    )


def _recall(rank_Q: Ints) -> Floats:
    return metrics.recall_at(metrics.hits_of_ranks(rank_Q, DEPTH), np.ones_like(rank_Q), DEPTH)


def _ndcg(rank_Q: Ints) -> Floats:
    return metrics.ndcg_at(metrics.hits_of_ranks(rank_Q, DEPTH), np.ones_like(rank_Q), 10)


def ordered(name: str, outcomes: Outcomes, score_Q: Floats, rates: Sequence[float] = RATES) -> Policy:
    """Return the policy that opens the gate for the highest scores first, ties in the queries' order."""
    order = np.argsort(-score_Q, kind="stable")
    opened_Q = np.zeros(outcomes.queries, np.bool_)
    points = []
    for rate in sorted(rates):
        opened_Q[order[: round(rate * outcomes.queries)]] = True
        points.append(point(outcomes, opened_Q))
    return Policy(name=name, points=tuple(points))


def single(name: str, outcomes: Outcomes, opened_Q: NDArray[np.bool_]) -> Policy:
    """Return the policy with one point: the gate opens for these queries."""
    return Policy(name=name, points=(point(outcomes, opened_Q),))


def random(outcomes: Outcomes, rates: Sequence[float] = RATES) -> Policy:
    """Return what opening the gate by chance gives on average: a straight line from never to always."""
    points = []
    for rate in rates:
        figures = {
            name: float((1 - rate) * outcomes.closed[name].mean() + rate * outcomes.opened[name].mean())
            for name in FIGURES
        }
        points.append(Point(rate=rate, figures=figures, kept=_kept(outcomes, figures)))
    return Policy(name="random", points=tuple(points))


def chance_band(outcomes: Outcomes, figure: str, rate: float) -> float:
    """Return half the width of the interval that 95 % of the random choices of a rate fall in."""
    gain_Q = outcomes.opened[figure] - outcomes.closed[figure]
    return float(_CONFIDENCE * gain_Q.std() * np.sqrt(rate * (1 - rate) / max(1, outcomes.queries - 1)))


def gain_of(outcomes: Outcomes, figure: str) -> tuple[float, float]:
    """Return what always opening the gate adds to a figure, and half its 95 % confidence interval."""
    gain_Q = outcomes.opened[figure] - outcomes.closed[figure]
    return float(gain_Q.mean()), float(_CONFIDENCE * gain_Q.std() / np.sqrt(max(1, len(gain_Q))))


def point(outcomes: Outcomes, opened_Q: NDArray[np.bool_]) -> Point:
    """Return the figures where the gate opens for these queries [Q]."""
    figures = {
        name: float(np.where(opened_Q, outcomes.opened[name], outcomes.closed[name]).mean())
        for name in FIGURES
    }
    return Point(rate=float(opened_Q.mean()), figures=figures, kept=_kept(outcomes, figures))


def _kept(outcomes: Outcomes, figures: Mapping[str, float]) -> dict[str, float]:
    kept = {}
    for name in FIGURES:
        never, always = float(outcomes.closed[name].mean()), float(outcomes.opened[name].mean())
        kept[name] = (figures[name] - never) / (always - never) if always != never else float("nan")
    return kept
