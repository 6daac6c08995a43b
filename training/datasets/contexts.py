"""Queries as search contexts: what the serving side would have known at each query's own moment.

History and user features come out exactly as the user store gives them, so that training, offline
evaluation and the running cluster encode the same request.
"""

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards.search_context import History, RawValue, SearchContext, UserState
from training.datasets.tables import Dataset, timestamps_ms

NO_HISTORY = History()


class Histories:
    """Every user's events, oldest first, to be cut at any moment."""

    def __init__(self, events: pa.Table) -> None:
        ordered = events.sort_by([("timestamp", "ascending"), ("event_id", "ascending")])
        users = ordered.column("user_id").combine_chunks().dictionary_encode()
        user_E = users.indices.to_numpy()
        by_user_E = np.argsort(user_E, kind="stable")
        ends = np.cumsum(np.bincount(user_E, minlength=len(users.dictionary))).tolist()
        self._spans = dict(
            zip(users.dictionary.to_pylist(), zip([0, *ends], ends, strict=False), strict=True)
        )
        self._item_ids, self._actions = (
            _shared_texts(ordered.column(name))[by_user_E].tolist() for name in ("item_id", "action")
        )
        self._times_ms = timestamps_ms(ordered)[by_user_E].tolist()

    def of(self, user_id: str) -> History:
        """Return everything the user did; empty for an unknown one."""
        start, end = self._spans.get(user_id, (0, 0))
        if start == end:
            return NO_HISTORY
        columns = (self._item_ids, self._actions, self._times_ms)
        return History(*(tuple(column[start:end]) for column in columns))

    def before(self, user_id: str, now_ms: int, *, limit: int) -> History:
        """Return the user's newest `limit` events strictly before `now_ms`."""
        return self.of(user_id).before(now_ms, limit=limit)


def _shared_texts(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Return the texts as Python's, equal ones as one object: there are far fewer of them than rows."""
    encoded = column.combine_chunks().dictionary_encode()
    texts = np.array([*encoded.dictionary.to_pylist(), None], dtype=object)
    found: NDArray[np.object_] = texts[encoded.indices.fill_null(len(texts) - 1).to_numpy()]
    return found


def raw_features(table: pa.Table, key: str) -> dict[str, dict[str, RawValue]]:
    """Return the static columns of each row by its key, as raw features; a missing value is left out."""
    names = [name for name in table.column_names if name != key]
    return {
        row[key]: {name: _raw(row[name]) for name in names if row[name] is not None}
        for row in table.to_pylist()
    }


def search_contexts(dataset: Dataset, queries: pa.Table, *, history_limit: int) -> Iterator[SearchContext]:
    """Yield one context for each query, in order, with the user's history strictly before it."""
    asking = pc.is_in(dataset.events.column("user_id"), value_set=pc.unique(queries.column("user_id")))
    histories = Histories(dataset.events.filter(asking))
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
