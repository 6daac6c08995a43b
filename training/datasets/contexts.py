"""Queries as search contexts: what the serving side would have known at each query's own moment.

History and user features come out exactly as the user store gives them, so that training, offline
evaluation and the running cluster encode the same request.
"""

from collections.abc import Iterator

import pyarrow as pa

from shards.search_context import History, RawValue, SearchContext, UserState
from training.datasets.tables import Dataset, timestamps_ms

NO_HISTORY = History()


class Histories:
    """Every user's events, oldest first, to be cut at any moment."""

    def __init__(self, events: pa.Table) -> None:
        grouped: dict[str, tuple[list[str], list[str], list[int]]] = {}
        ordered = events.sort_by([("timestamp", "ascending"), ("event_id", "ascending")])
        columns = (ordered.column(name).to_pylist() for name in ("user_id", "item_id", "action"))
        for user_id, item_id, action, time_ms in zip(*columns, timestamps_ms(ordered).tolist(), strict=True):
            item_ids, actions, times_ms = grouped.setdefault(user_id, ([], [], []))
            item_ids.append(item_id)
            actions.append(action)
            times_ms.append(time_ms)
        self._by_user = {
            user: History(tuple(item_ids), tuple(actions), tuple(times_ms))
            for user, (item_ids, actions, times_ms) in grouped.items()
        }

    def of(self, user_id: str) -> History:
        """Return everything the user did; empty for an unknown one."""
        return self._by_user.get(user_id, NO_HISTORY)

    def before(self, user_id: str, now_ms: int, *, limit: int) -> History:
        """Return the user's newest `limit` events strictly before `now_ms`."""
        return self.of(user_id).before(now_ms, limit=limit)


def raw_features(table: pa.Table, key: str) -> dict[str, dict[str, RawValue]]:
    """Return the static columns of each row by its key, as raw features; a missing value is left out."""
    names = [name for name in table.column_names if name != key]
    return {
        row[key]: {name: _raw(row[name]) for name in names if row[name] is not None}
        for row in table.to_pylist()
    }


def search_contexts(dataset: Dataset, queries: pa.Table, *, history_limit: int) -> Iterator[SearchContext]:
    """Yield one context for each query, in order, with the user's history strictly before it."""
    histories = Histories(dataset.events)
    features = raw_features(dataset.users, "user_id")
    columns = (queries.column(name).to_pylist() for name in ("query", "user_id"))
    for query, user_id, now_ms in zip(*columns, timestamps_ms(queries).tolist(), strict=True):
        history = histories.before(user_id, now_ms, limit=history_limit)
        user = UserState(user_id=user_id, features=features.get(user_id, {}), history=history)
        yield SearchContext(query=query, user=user, now_ms=now_ms)


def _raw(value: str | float | list[str]) -> RawValue:
    if isinstance(value, list):
        return tuple(value)
    return value if isinstance(value, str) else float(value)
