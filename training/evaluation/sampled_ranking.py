"""Leave-one-out against sampled items: does the one that a user took next stand among the first of 101?

He et al., "Neural Collaborative Filtering" (WWW 2017, arXiv 1708.05031, section 4.1): the item is ranked
among 100 that the user never met. It flatters everybody alike, and rankings of the whole catalogue may order
systems otherwise (Krichene and Rendle, KDD 2020); it is what those systems were published with.

Legend: Q = users, K = places of a list.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from shards.search_context import FilterClause
from shards.stages import Retriever
from training.datasets.contexts import Histories
from training.datasets.tables import Dataset
from training.evaluation import metrics
from training.evaluation.judgements import Judged, judged_queries

DEPTH = 10
"""Places of a list that are judged."""
_HISTORY = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampled:
    """One user who asks, and the items that are ranked for them: the one they took, and others."""

    judged: Judged
    item_ids: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledFigures:
    """Means over users."""

    users: int
    hit_rate_10: float
    ndcg_10: float


def sampled(
    dataset: Dataset,
    split: str,
    *,
    others: int = 100,
    seed: int = 0,
    limit: int = 0,
) -> list[Sampled]:
    """Return the queries of a split, or `limit` of them, with items that their users never met."""
    rng = np.random.default_rng(seed)
    histories = Histories(dataset.events)
    item_ids = dataset.items.column("item_id").to_pylist()
    found = []
    for judged in judged_queries(dataset, split, limit=limit, history_limit=_HISTORY):
        met = set(histories.of(judged.context.user.user_id).item_ids)
        unmet = [item_id for item_id in item_ids if item_id not in met]
        drawn = rng.choice(len(unmet), size=min(others, len(unmet)), replace=False)
        found.append(
            Sampled(judged=judged, item_ids=(judged.relevant, *(unmet[row] for row in drawn.tolist())))
        )
    return found


def figures_among(retriever: Retriever, asked: Sequence[Sampled]) -> SampledFigures:
    """Return how a channel ranks each user's items, asked as a shard is: with the items as a filter."""
    hit_QK = np.zeros((len(asked), DEPTH), np.bool_)
    for row, user in enumerate(asked):
        only = (FilterClause(attribute="item_id", any_of=user.item_ids),)
        found = retriever.retrieve(user.judged.context, DEPTH, only, (), 0).item_ids
        hit_QK[row, : len(found)] = [item_id == user.judged.relevant for item_id in found]
    relevant_Q = np.ones(len(asked), np.int64)
    return SampledFigures(
        users=len(asked),
        hit_rate_10=float(metrics.hit_rate_at(hit_QK, DEPTH).mean()),
        ndcg_10=float(metrics.ndcg_at(hit_QK, relevant_Q, DEPTH).mean()),
    )
