"""Items that users take after an item: sequential rules, for data whose order tells most.

Legend: E = events of known items, by user and then in order of time; P = pairs of an item and a later one.
"""

import numpy as np
import pyarrow as pa

from training.datasets.tables import row_numbers, timestamps_ms
from training.keyed_table import keyed_table
from training.sparse_rows import Floats, Ints


def successors(
    items: pa.Table, events: pa.Table, *, gap_decay: float, most_steps: int, shrink: float, top: int
) -> pa.Table:
    """Return for every item those that users took after it, the sooner the more.

    sim(i, j) = Σ over users who took j `s` steps after i of `gap_decay` ** (s - 1), for s of at most
    `most_steps`, over (√(n_i n_j) + `shrink`), where n are the events of an item. What leads to an item is
    not recommended after it, unlike by a cosine. Source: Ludewig and Jannach, "Evaluation of Session-based
    Recommendation Algorithms", UMUAI 2018, arXiv 1803.09587 (SR), with a geometric weight for its 1/s, and
    normalised.
    """
    user_E, item_E = _in_order(events, items)
    count_N = np.bincount(item_E, minlength=len(items))
    pair_P, weight_P = _pairs(user_E, item_E, len(items), gap_decay, most_steps)
    pairs, of_P = np.unique(pair_P, return_inverse=True)
    before, after = np.divmod(pairs, max(len(items), 1))
    norm = np.sqrt(count_N[before] * count_N[after]) + shrink
    score = np.bincount(of_P, weights=weight_P, minlength=len(pairs)) / norm
    order = np.lexsort((-score, before))
    starts = np.searchsorted(before[order], np.arange(len(items) + 1))
    ranges = zip(items.column("item_id").to_pylist(), starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    return keyed_table(
        items,
        {
            item_id: (
                after[order[first : min(last, first + top)]],
                score[order[first : min(last, first + top)]],
            )
            for item_id, first, last in ranges
        },
    )


def _in_order(events: pa.Table, items: pa.Table) -> tuple[Ints, Ints]:
    """Return the user and the row of the item of each event [E]."""
    item_E = row_numbers(events.column("item_id"), items.column("item_id"))
    user_E = events.column("user_id").combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    order = np.lexsort((timestamps_ms(events), user_E))
    order = order[item_E[order] >= 0]
    return user_E[order], item_E[order]


def _pairs(user_E: Ints, item_E: Ints, items: int, gap_decay: float, most_steps: int) -> tuple[Ints, Floats]:
    """Return each meeting of a pair, as item * items + later item, and its weight [P]."""
    pairs, weights = [np.zeros(0, np.int64)], [np.zeros(0)]
    for step in range(1, most_steps + 1):
        met = (user_E[step:] == user_E[:-step]) & (item_E[step:] != item_E[:-step])
        pairs.append(item_E[:-step][met] * items + item_E[step:][met])
        weights.append(np.full(int(met.sum()), gap_decay ** (step - 1)))
    return np.concatenate(pairs), np.concatenate(weights)
