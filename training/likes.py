"""Who likes what, as collaborative filtering takes it: a number for each user and item that met.

like(u, i) = 0.5 ** (age of the newest such event / half life), 1 where likes do not fade. Legend: U = users,
N = items, E = pairs of a user and an item that met.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.datasets.splits import before
from training.datasets.statistics import DAY_MS
from training.datasets.tables import row_numbers, timestamps_ms
from training.sparse_rows import Floats, Ints, SparseRows, sparse_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class PairAges:
    """How long ago each user met each item last and first, in days [E]; pairs by user, then by item."""

    user_ids: pa.Array
    user_E: Ints
    item_E: Ints
    newest_E: Floats
    first_E: Floats


def pair_ages(events: pa.Table, items: pa.Table, now_ms: int) -> PairAges:
    """Return the pairs of all events with items that are known; users in the order in which they appear."""
    users = events.column("user_id").combine_chunks().dictionary_encode()
    item_E = row_numbers(events.column("item_id"), items.column("item_id"))
    known = item_E >= 0
    pair_E = (users.indices.to_numpy().astype(np.int64) * len(items) + item_E)[known]
    age_E = ((now_ms - timestamps_ms(events)) / DAY_MS)[known]
    order = np.lexsort((age_E, pair_E))
    pairs, start = np.unique(pair_E[order], return_index=True)
    last = np.append(start[1:], len(order)) - 1
    user_E, item_E = np.divmod(pairs, max(len(items), 1))
    ages = age_E[order]
    return PairAges(
        user_ids=users.dictionary,
        user_E=user_E,
        item_E=item_E,
        newest_E=ages[start] if len(ages) else ages,
        first_E=ages[last] if len(ages) else ages,
    )


def likes(
    items: pa.Table,
    events: pa.Table,
    now_ms: int,
    *,
    half_life_days: float | None = None,
    window_days: float | None = None,
    actions: Sequence[str] = (),
    first: bool = False,
) -> SparseRows:
    """Return the likes [U, N] as of `now_ms`; a row for every user with an event before it.

    Only events of these actions count, if any are named, and only pairs that met in the last `window_days`,
    where those are given. With `first` a like fades since the user *first* met the item: what users
    discover, where otherwise it is what they keep taking.
    """
    events = before(events, now_ms)
    users = len(pc.unique(events.column("user_id")))
    if actions:
        # A user without such an event keeps their row, so that all likes of a snapshot go together.
        other = pc.invert(pc.is_in(events.column("action"), value_set=pa.array(actions, pa.string())))
        item_ids = pc.if_else(other, pa.scalar(None, pa.string()), events.column("item_id"))
        events = events.set_column(events.column_names.index("item_id"), "item_id", item_ids)
    ages = pair_ages(events, items, now_ms)
    age_E = ages.first_E if first else ages.newest_E
    kept = np.ones(len(age_E), np.bool_) if window_days is None else age_E <= window_days
    like_E = np.ones(len(age_E)) if half_life_days is None else np.exp2(-age_E / half_life_days)
    return sparse_rows(ages.user_E[kept], ages.item_E[kept], like_E[kept], rows=users, width=len(items))
