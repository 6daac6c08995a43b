"""What a shop's tables lack and can be made from the others: users, ids, queries and splits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from training.datasets.proxy_queries import Taken, proxy_query
from training.datasets.splits import TimeSplit, quantile_split
from training.datasets.tables import TIMESTAMP, row_numbers, timestamps_ms
from training.datasets.visits import PAUSE_MS, visit_starts_ms

TAKE = "take"
"""The action of events that name none."""

_BOUGHT = ("purchase", "buy", "bought", "order", "transaction", "sale")
"""Actions that count as found where there are others beside them."""

NO_QUERIES = pa.table(
    {
        "query_id": pa.array([], pa.string()),
        "timestamp": pa.array([], TIMESTAMP),
        "user_id": pa.array([], pa.string()),
        "query": pa.array([], pa.string()),
        "item_id": pa.array([], pa.string()),
        "split": pa.array([], pa.string()),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxies:
    """Which events queries are made of, and at most how many; `topics` are item columns of few values."""

    taken: tuple[str, ...]
    most: int
    topics: Sequence[str] = ()
    seed: int = 0


def with_ids(table: pa.Table, column: str, prefix: str) -> pa.Table:
    """Return the table with an id of each row, by its place, where it has none."""
    if column in table.column_names:
        return table
    places = pa.array(np.arange(len(table))).cast(pa.string())
    padded = pc.utf8_lpad(places, width=len(str(len(table))), padding="0")
    return table.append_column(column, pc.binary_join_element_wise(prefix, padded, ""))


def with_action(events: pa.Table) -> pa.Table:
    """Return the events with one action for all where they name none."""
    if "action" in events.column_names:
        return events
    return events.append_column("action", pa.repeat(pa.scalar(TAKE), len(events)))


def users_of(tables: Sequence[pa.Table]) -> pa.Table:
    """Return the users that any of the tables names."""
    named = [pc.unique(table.column("user_id")) for table in tables if "user_id" in table.column_names]
    texts = [values for values in named if values.type == pa.string()]
    known = pc.unique(pa.chunked_array(texts, pa.string())).drop_null()
    return pa.table({"user_id": known.filter(pc.not_equal(known, ""))})


def taken_actions(events: pa.Table) -> tuple[str, ...]:
    """Return the actions by which an item counts as found: purchases where there are any, or else all."""
    actions = sorted(pc.unique(events.column("action")).to_pylist())
    bought = tuple(action for action in actions if any(word in action.lower() for word in _BOUGHT))
    return bought or tuple(actions)


def proxy_queries(items: pa.Table, events: pa.Table, proxies: Proxies) -> pa.Table:
    """Return queries that people might have typed for what they then took, without `split`.

    A query stands at the beginning of its visit, so that nothing of the visit is in its history. Of one item
    in one visit there is one query; of more than `most` an even sample is drawn.
    """
    starts_E = visit_starts_ms(events)
    rows = np.flatnonzero(pc.is_in(events.column("action"), value_set=pa.array(proxies.taken)).to_numpy())
    rows = rows[_first_of_visit(events, starts_E, rows)]
    if len(rows) > proxies.most:
        rows = np.sort(np.random.default_rng(proxies.seed).choice(rows, proxies.most, replace=False))
    taken = events.take(pa.array(rows))
    found = pc.index_in(taken.column("item_id"), value_set=items.column("item_id")).to_pylist()
    sources = _sources(items, proxies.topics)
    event_ids = taken.column("event_id").to_pylist()
    texts = [
        proxy_query(sources(row), key, seed=proxies.seed) for row, key in zip(found, event_ids, strict=True)
    ]
    return pa.table(
        {
            "query_id": pc.binary_join_element_wise("q-", taken.column("event_id"), ""),
            "timestamp": pa.array(starts_E[rows], TIMESTAMP),
            "user_id": taken.column("user_id"),
            "query": pa.array(texts, pa.string()),
            "item_id": taken.column("item_id"),
        }
    )


def with_what_followed(queries: pa.Table, events: pa.Table, taken: Sequence[str]) -> pa.Table:
    """Return the queries after which their users took something before a pause, with the first such item."""
    found = events.filter(pc.is_in(events.column("action"), value_set=pa.array(taken)))
    users = pc.unique(found.column("user_id"))
    user_E = row_numbers(found.column("user_id"), users)
    user_Q = row_numbers(queries.column("user_id"), users)
    times_E, times_Q = timestamps_ms(found), timestamps_ms(queries)
    start = min(times_E.min(initial=0), times_Q.min(initial=0))
    span = max(times_E.max(initial=0), times_Q.max(initial=0)) - start + 1
    order = np.argsort(user_E * span + times_E - start, kind="stable")
    next_Q = np.searchsorted((user_E * span + times_E - start)[order], user_Q * span + times_Q - start)
    event_Q = np.append(order, -1)[next_Q]
    led_Q = (user_Q >= 0) & (event_Q >= 0)
    led_Q &= (user_E[event_Q] == user_Q) & (times_E[event_Q] - times_Q <= PAUSE_MS)
    items = found.column("item_id").take(pa.array(event_Q[led_Q]))
    return queries.filter(pa.array(led_Q)).append_column("item_id", items)


def with_split(queries: pa.Table, *, valid: float, test: float) -> pa.Table:
    """Return the queries with a split by time, the last shares held out, where they have none."""
    if "split" in queries.column_names:
        return queries
    times_ms = timestamps_ms(queries)
    split: TimeSplit = quantile_split(times_ms, valid=valid, test=test)
    return queries.append_column("split", split.labels(times_ms))


def _first_of_visit(
    events: pa.Table, starts_E: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Return which of the rows are the first of their user, visit and item."""
    taken = events.take(pa.array(rows))
    columns = (taken.column(name).combine_chunks() for name in ("user_id", "item_id"))
    users, items = (column.dictionary_encode().indices.to_numpy() for column in columns)
    keys = (users, items, starts_E[rows])
    order = np.lexsort(keys)
    changed = [key[order[1:]] != key[order[:-1]] for key in keys]
    first = np.zeros(len(rows), np.bool_)
    first[order[:1]] = True
    first[order[1:]] = np.any(changed, axis=0)
    return first


def _sources(items: pa.Table, topics: Sequence[str]) -> "Sources":
    columns = [items.column(name).to_pylist() for name in topics]
    return Sources(items.column("title").to_pylist(), columns)


class Sources:
    """What proxy queries are made from, by the row of the item."""

    def __init__(self, titles: Sequence[str], topics: Sequence[Sequence[object]]) -> None:
        self._titles, self._topics = titles, topics

    def __call__(self, row: int) -> Taken:
        """Return the title of an item and what its columns of few values say."""
        said: list[str] = []
        for column in self._topics:
            value = column[row]
            said += value if isinstance(value, list) else [value] if isinstance(value, str) else []
        return Taken(title=self._titles[row], topics=said)
