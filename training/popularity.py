"""Channel C8: what is popular now, and what is new. Legend: N = items, E = events."""

import numpy as np
import pyarrow as pa

from shards.lookup_table import GLOBAL_KEY
from training.datasets.splits import before
from training.datasets.statistics import DAY_MS
from training.datasets.tables import row_numbers, timestamps_ms
from training.keyed_table import best_of, keyed_table
from training.likes import pair_ages


def trending_items(
    items: pa.Table,
    events: pa.Table,
    now_ms: int,
    *,
    half_life_days: float,
    first_only: bool = False,
    top: int,
) -> pa.Table:
    """Return the items of the highest decayed popularity under the one key "".

    popularity(i) = Σ over its events of 0.5 ** (age / half_life_days); with `first_only` over the first
    event of each user with the item, so that it tells what people come to like and not what they repeat.
    """
    events = before(events, now_ms)
    if first_only:
        ages = pair_ages(events, items, now_ms)
        row_E, age_E = ages.item_E, ages.first_E
    else:
        row_E = row_numbers(events.column("item_id"), items.column("item_id"))
        age_E = (now_ms - timestamps_ms(events)) / DAY_MS
    known = row_E >= 0
    weight_E = np.exp2(-age_E[known] / half_life_days)
    score_N = np.bincount(row_E[known], weights=weight_E, minlength=len(items)).astype(np.float64)
    return keyed_table(items, {GLOBAL_KEY: best_of(score_N, top)})


def new_items(items: pa.Table, *, within_days: float, top: int) -> pa.Table:
    """Return the newest items under the one key "": those first met at most `within_days` ago.

    An item scores 1 on the day that it is met first and 0 when it is `within_days` old; the items' column
    "age_days" tells. The channel's quota keeps places for them in the merge, as what is new has met nobody
    yet who could speak for it: cold-start slots.
    """
    age_N = items.column("age_days").to_numpy(zero_copy_only=False).astype(np.float64)
    score_N = np.nan_to_num(1.0 - age_N / within_days, nan=0.0)
    return keyed_table(items, {GLOBAL_KEY: best_of(score_N, top)})
