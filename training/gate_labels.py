"""What embedding retrieval gained for a search, by one of two labels; both between 0 and 1.

"recall" at a depth k: a gated channel has the item that was taken among its first k and the others, merged,
have not. It needs no rankers. The gain is the mean over several depths, as recall is asked for at one and
the page filled from another.

"page": that, and by how much the NDCG@10 of the page is higher with the gate open than with it closed; where
it is lower nothing is added. It also counts what the scores of gated channels tell the rankers.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Candidates
from shards.merging import ChannelResult, merge
from shards.release import Release, ReleaseChannel
from training.evaluation.gate_curve import NDCG, outcomes_of


def recall_gain(
    release: Release, retrieved: Mapping[str, Candidates], item_id: str, depths: Sequence[int]
) -> float:
    """Return the share of depths at which only gated channels found the item that was taken."""
    gated = [retrieved[c.name].item_ids for c in release.channels if c.gated]
    first = min((found.index(item_id) for found in gated if item_id in found), default=None)
    if first is None or first >= max(depths):
        return 0.0
    others = merge(
        [_result(c, retrieved[c.name]) for c in release.channels if not c.gated], limit=release.merged
    ).item_ids
    other = others.index(item_id) if item_id in others else len(others) + max(depths)
    return sum(first < depth <= other for depth in depths) / len(depths)


def _result(channel: ReleaseChannel, candidates: Candidates) -> ChannelResult:
    return ChannelResult(name=channel.name, weight=channel.weight, quota=channel.quota, candidates=candidates)


def page_gains(ranks: Sequence[tuple[int, int, int, int]]) -> NDArray[np.float64]:
    """Return what an open gate adds to the NDCG@10 of each search's page [Q], at least 0.

    `ranks` are those of `ranks_by_gate`.
    """
    outcomes = outcomes_of(np.array(ranks, np.int64).reshape(-1, 4))
    return np.maximum(outcomes.opened[NDCG] - outcomes.closed[NDCG], 0.0)
