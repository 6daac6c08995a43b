"""What was known of every item at a moment: the item table with popularity, price and rating as of then.

The same columns are made for the moment that rankers train from and, later, for the moment that a release
answers from, so that training and serving read alike. Nothing looks past `now_ms`.

Legend: N = items, E = events.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.datasets.statistics import DAY_MS, AsOfIndex
from training.datasets.tables import row_numbers, timestamps_ms

Floats = NDArray[np.float64]

_TREND_HALF_LIFE_DAYS = 5.0


def items_as_of(
    items: pa.Table, events: pa.Table, now_ms: int, *, windows_days: Sequence[int] = (30, 1, 7, 90)
) -> pa.Table:
    """Return the items with the statistics of the events strictly before `now_ms`.

    Columns: "popularity", "popularity_<days>d" and "popularity_1h" (events), "popularity_daily" (events a day
    since the item was first met), "trending" (events, each counting half as much every five days), "prior"
    and "trending_prior" (log popularity of the first window and log "trending", 0 to 1), "age_days" and
    "idle_days" (since its first and its newest event; missing if none), and where events have them
    "price_gbp" or "price" (the newest) and "rating" (the mean).
    """
    row_E = row_numbers(events.column("item_id"), items.column("item_id"))
    time_E = timestamps_ms(events)
    seen = np.flatnonzero((time_E < now_ms) & (row_E >= 0))
    row_E, time_E = row_E[seen], time_E[seen]
    index = AsOfIndex(row_E, time_E)
    row_N = np.arange(len(items))
    columns: dict[str, NDArray[Any]] = {"popularity": index.count(row_N, now_ms)}
    for days in windows_days:
        columns[f"popularity_{days}d"] = index.count(row_N, now_ms, window_ms=days * DAY_MS)
    columns["popularity_1h"] = index.count(row_N, now_ms, window_ms=DAY_MS // 24)
    faded_E = 0.5 ** ((now_ms - time_E) / (_TREND_HALF_LIFE_DAYS * DAY_MS))
    columns["trending"] = np.bincount(row_E, weights=faded_E, minlength=len(items))
    columns["prior"] = _prior(columns[f"popularity_{windows_days[0]}d"])
    columns["trending_prior"] = _prior(columns["trending"])
    first_N, last_N = _first_and_last(row_E, time_E, len(items))
    age_N = (now_ms - first_N) / DAY_MS
    columns["age_days"] = age_N
    columns["idle_days"] = (now_ms - last_N) / DAY_MS
    columns["popularity_daily"] = columns["popularity"] / np.maximum(np.nan_to_num(age_N, nan=1.0), 1.0)
    for name in ("price_gbp", "price"):
        if name in events.column_names:
            columns[name] = index.last_value(_floats(events, name)[seen], row_N, now_ms)
    if "rating" in events.column_names:
        columns["rating"] = _mean(row_E, _floats(events, "rating")[seen], len(items))
    return _appended(items, columns)


def _prior(count_N: NDArray[Any]) -> Floats:
    """Return log counts over the largest one [N], 0 to 1."""
    log_N: Floats = np.log1p(count_N)
    return log_N / max(float(log_N.max(initial=0.0)), 1.0)


def _first_and_last(row_E: NDArray[np.int64], time_E: NDArray[np.int64], items: int) -> tuple[Floats, Floats]:
    first_N, last_N = np.full(items, np.inf), np.full(items, -np.inf)
    np.minimum.at(first_N, row_E, time_E)
    np.maximum.at(last_N, row_E, time_E)
    return np.where(np.isfinite(first_N), first_N, np.nan), np.where(np.isfinite(last_N), last_N, np.nan)


def _floats(events: pa.Table, name: str) -> Floats:
    values: Floats = events.column(name).cast(pa.float64()).to_numpy()
    return values


def _mean(row_E: NDArray[np.int64], value_E: Floats, items: int) -> Floats:
    """Return the mean value of each item's events [N], NaN where none has a value."""
    known = np.isfinite(value_E)
    total_N = np.bincount(row_E[known], weights=value_E[known], minlength=items)
    count_N = np.bincount(row_E[known], minlength=items)
    return np.where(count_N > 0, total_N / np.maximum(count_N, 1), np.nan)


def _appended(items: pa.Table, columns: dict[str, NDArray[Any]]) -> pa.Table:
    for name, values in columns.items():
        items = items.append_column(name, pa.array(values, pa.float64(), from_pandas=True))
    return items
