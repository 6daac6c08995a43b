"""Weights of the merge, fitted to what users of the valid split took next.

Coordinate search: one channel's weight after another is set to the one of a few that gives the best NDCG@20
on those users, until a round changes nothing. The sum over channels of weight / (60 + rank) is what `merge`
makes; quotas do not matter for the first places. Legend: Q = users, C = channels, N = items found for a user.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Candidates
from shards.merging import RRF_K, ChannelResult, merge
from shards.release import ReleaseChannel
from training.evaluation import metrics
from training.evaluation.next_items import DEPTH, NextFigures, NextItems, figures_of

GRID = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
_ROUNDS = 3
_LEAST_GAIN = 1e-4
"""A weight changes for no less: smaller gains are noise of these users."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedMerge:
    """The weight of each channel, and what the merge then reaches for the users that it was fitted to."""

    weights: Mapping[str, float]
    figures: NextFigures


def reweighted(
    channels: Sequence[ReleaseChannel], weights: Mapping[str, float]
) -> tuple[ReleaseChannel, ...]:
    """Return the channels with these weights, by name."""
    return tuple(replace(channel, weight=weights[channel.name]) for channel in channels)


def fitted_merge(
    asked: Sequence[NextItems],
    retrieved: Sequence[Mapping[str, Candidates]],
    weights: Mapping[str, float],
) -> FittedMerge:
    """Return the fitted weights, from `weights` on, and the figures of the lists that they merge."""
    weights, _ = fitted_weights(asked, retrieved, weights)
    lists = []
    for found in retrieved:
        results = [
            ChannelResult(name=name, weight=weight, candidates=found[name])
            for name, weight in weights.items()
        ]
        lists.append(merge(results, limit=DEPTH).item_ids)
    return FittedMerge(weights=weights, figures=figures_of(asked, lists))


def fitted_weights(
    asked: Sequence[NextItems],
    retrieved: Sequence[Mapping[str, Candidates]],
    weights: Mapping[str, float],
) -> tuple[dict[str, float], float]:
    """Return the weight of each channel and the NDCG@20 that they reach, from `weights` on.

    A channel without weight adds nothing to the order, but what it finds stays in the merged list.
    """
    names = tuple(weights)
    parts = [_reciprocal_ranks(user, found, names) for user, found in zip(asked, retrieved, strict=True)]
    relevant_Q = np.array([len(user.relevant) for user in asked], np.int64)

    def ndcg(weight_C: Floats) -> float:
        hit_QK = np.zeros((len(parts), DEPTH), np.bool_)
        for row, (rank_CN, relevant_N) in enumerate(parts):
            best = np.argsort(-(weight_C @ rank_CN).astype(np.float32), kind="stable")[:DEPTH]
            hit_QK[row, : len(best)] = relevant_N[best]
        return float(metrics.ndcg_at(hit_QK, relevant_Q, DEPTH).mean())

    weight_C = np.array([weights[name] for name in names])
    best = ndcg(weight_C)
    for _ in range(_ROUNDS):
        before = best
        for channel in range(len(names)):
            for value in GRID:
                tried_C = weight_C.copy()
                tried_C[channel] = value
                if tried_C.any() and (reached := ndcg(tried_C)) > best + _LEAST_GAIN:
                    best, weight_C = reached, tried_C
        if best == before:
            break
    return dict(zip(names, weight_C.tolist(), strict=True)), best


def _reciprocal_ranks(
    user: NextItems, found: Mapping[str, Candidates], names: Sequence[str]
) -> tuple[Floats, NDArray[np.bool_]]:
    """Return 1 / (60 + rank) of each channel and item [C, N], items by id, and which are relevant [N]."""
    item_ids = sorted(set().union(*(found[name].item_ids for name in names)))
    columns = {item_id: column for column, item_id in enumerate(item_ids)}
    rank_CN = np.zeros((len(names), len(item_ids)))
    for channel, name in enumerate(names):
        at = [columns[item_id] for item_id in found[name].item_ids]
        rank_CN[channel, at] = 1.0 / (RRF_K + np.arange(1, len(at) + 1))
    return rank_CN, np.array([item_id in user.relevant for item_id in item_ids], np.bool_)
