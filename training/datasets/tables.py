"""The four canonical tables that every dataset becomes, as Arrow tables.

| table   | columns                                                                                   |
| ------- | ----------------------------------------------------------------------------------------- |
| items   | item_id, title, then any static columns                                                   |
| users   | user_id, then any static columns                                                          |
| events  | event_id, user_id, item_id, action, timestamp; numbers (`docs/data.md`), session_id       |
| queries | query_id, timestamp, user_id, query, item_id (the relevant one), split; session_id        |

Ids and texts are `string`, times `timestamp[ms, UTC]`; `training.datasets.schema` checks the rest.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

TIMESTAMP = pa.timestamp("ms", tz="UTC")
"""The one time type of the canonical tables."""

_SORT_KEYS = {
    "items": ["item_id"],
    "users": ["user_id"],
    "events": ["timestamp", "event_id"],
    "queries": ["timestamp", "query_id"],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """One source as four tables; see the module's docstring for their columns.

    `queries_are_proxies` says that the queries were derived from what users took, because the
    source has no search log. Every figure computed from such queries has to say so.
    """

    name: str
    items: pa.Table
    users: pa.Table
    events: pa.Table
    queries: pa.Table
    queries_are_proxies: bool

    def tables(self) -> dict[str, pa.Table]:
        """Return the four tables by name."""
        return {"items": self.items, "users": self.users, "events": self.events, "queries": self.queries}


def canonical_types(table: pa.Table) -> pa.Table:
    """Return the table with `string` for every text type and milliseconds in UTC for every time.

    Times without a zone are taken as UTC, finer ones are cut to the millisecond. Rows keep their
    order; a column of any other type stays as it is, for the schema check to judge.
    """
    return pa.table({name: _canonical_column(table.column(name)) for name in table.column_names})


def sort_tables(dataset: Dataset) -> Dataset:
    """Return the dataset with items and users by id, events and queries by time, then id."""
    tables = {
        name: table.sort_by([(key, "ascending") for key in _SORT_KEYS[name]]).combine_chunks()
        for name, table in dataset.tables().items()
    }
    return Dataset(name=dataset.name, queries_are_proxies=dataset.queries_are_proxies, **tables)


def timestamps_ms(table: pa.Table) -> NDArray[np.int64]:
    """Return the `timestamp` column as milliseconds since 1970, [N]."""
    values: NDArray[np.int64] = table.column("timestamp").cast(pa.int64()).to_numpy()
    return values


def row_numbers(values: pa.ChunkedArray, vocabulary: pa.ChunkedArray) -> NDArray[np.int64]:
    """Return for each value its row in `vocabulary`, -1 where it has none, [N]."""
    rows = pc.fill_null(pc.index_in(values, value_set=vocabulary), -1)
    numbers: NDArray[np.int64] = rows.cast(pa.int64()).to_numpy()
    return numbers


def _canonical_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _canonical_column(column.cast(kind.value_type))
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return column.cast(pa.string())
    if pa.types.is_timestamp(kind):
        return column.cast(TIMESTAMP, safe=False)
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_text(kind.value_type):
        return column.cast(pa.list_(pa.string()))
    return column


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))
