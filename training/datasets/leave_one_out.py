"""Leave-one-out over any data set: each user's last item is test, the one before it valid.

SASRec (arXiv 1808.09781, section IV) and He et al. (arXiv 1708.05031, section 4.1) test like this. Splits are
moments here, so **positions take the place of times**: everybody's last item stands at `LAST`, the one
before it a day earlier, and so on. Ages in days tell the order and nothing else.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from training.datasets import schema
from training.datasets.tables import TIMESTAMP, Dataset, sort_tables

LAST = datetime(2000, 1, 1, tzinfo=UTC)
"""Where everybody's last item stands; any day would do."""

_STEP = timedelta(days=1)
_LEAST = 3
"""Items that a user needs to be trained on, stopped by and tested."""


def leave_one_out(dataset: Dataset, action: str, *, name: str) -> Dataset:
    """Return the data set with positions for times; queries are users who browse, before each such event.

    What users did otherwise stays half a day before the next of these events; users with fewer than three,
    and what came after the last one, are left out.
    """
    events = dataset.events.sort_by([("user_id", "ascending"), ("timestamp", "ascending")])
    counted_E = pc.equal(events.column("action"), action).to_numpy().astype(np.int64)
    users, user_E = np.unique(events.column("user_id").to_numpy(zero_copy_only=False), return_inverse=True)
    total_U = np.bincount(user_E, weights=counted_E, minlength=len(users)).astype(np.int64)
    met_E = np.cumsum(counted_E) - (np.cumsum(total_U) - total_U)[user_E]
    left_E = total_U[user_E] - met_E
    kept = np.flatnonzero((total_U[user_E] >= _LEAST) & ((left_E > 0) | (counted_E == 1)))
    half_days = 2 * left_E - (1 - counted_E)
    times = pa.array([LAST - _STEP / 2 * int(half) for half in half_days[kept]], TIMESTAMP)
    index = events.column_names.index("timestamp")
    moved = events.take(pa.array(kept)).set_column(index, "timestamp", times)
    asked = np.flatnonzero((counted_E == 1)[kept] & (met_E[kept] > 1))
    found = replace(
        dataset,
        name=name,
        users=dataset.users.filter(
            pc.is_in(dataset.users.column("user_id"), value_set=pc.unique(moved.column("user_id")))
        ),
        events=moved,
        queries=_browsing(moved.take(pa.array(asked)), left_E[kept][asked]),
        queries_are_proxies=False,
    )
    schema.check(found)
    return sort_tables(found)


def _browsing(events: pa.Table, left_Q: np.typing.NDArray[np.int64]) -> pa.Table:
    """Return the moments before some events as searches without a query."""
    split = np.array(["test", "valid", "train"])[np.minimum(left_Q, 2)]
    return pa.table(
        {
            "query_id": events.column("event_id"),
            "timestamp": events.column("timestamp"),
            "user_id": events.column("user_id"),
            "query": pa.repeat(pa.scalar(""), len(events)),
            "item_id": events.column("item_id"),
            "split": pa.array(split.tolist(), pa.string()),
        }
    )
