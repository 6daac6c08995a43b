"""The schema of the four tables, and the check that names table, column and row of every fault.

A `Problem` is one kind of fault in one column: how many rows have it and which is the first, counted
from 0 in the table as it was given.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from shards.errors import FieldViolation, InvalidInput
from training.datasets.splits import SPLITS
from training.datasets.tables import TIMESTAMP, Dataset, timestamps_ms

Mask = NDArray[np.bool_]

TEXTS = pa.list_(pa.string())


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What one column must be.

    `kind` is "text", "texts", "number" or "time"; `empty` allows "" in a text, `null` allows no value.
    """

    name: str
    kind: str = "text"
    required: bool = True
    null: bool = False
    empty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """The columns of one table; `static` allows more of them, of any kind, with nulls."""

    key: str
    columns: tuple[Column, ...]
    static: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One kind of fault in one column; `first_row` is None where the column itself is at fault."""

    table: str
    column: str
    description: str
    first_row: int | None = None
    count: int = 0

    def violation(self) -> FieldViolation:
        """Return the problem as a field and a sentence."""
        if self.first_row is None:
            return FieldViolation(f"{self.table}.{self.column}", self.description)
        rows = "1 row" if self.count == 1 else f"{self.count} rows"
        return FieldViolation(
            f"{self.table}.{self.column}", f"{self.description} in {rows}, the first is row {self.first_row}"
        )


SCHEMA = {
    "items": Table(
        key="item_id", columns=(Column(name="item_id"), Column(name="title", empty=True)), static=True
    ),
    "users": Table(key="user_id", columns=(Column(name="user_id"),), static=True),
    "events": Table(
        key="event_id",
        columns=(
            Column(name="event_id"),
            Column(name="user_id"),
            Column(name="item_id"),
            Column(name="action"),
            Column(name="timestamp", kind="time"),
            Column(name="quantity", kind="number", required=False, null=True),
            Column(name="price_gbp", kind="number", required=False, null=True),
            Column(name="price", kind="number", required=False, null=True),
            Column(name="amount", kind="number", required=False, null=True),
            Column(name="coupon_discount", kind="number", required=False, null=True),
            Column(name="rating", kind="number", required=False, null=True),
            Column(name="completion", kind="number", required=False, null=True),
            Column(name="session_id", required=False, null=True),
        ),
    ),
    "queries": Table(
        key="query_id",
        columns=(
            Column(name="query_id"),
            Column(name="timestamp", kind="time"),
            Column(name="user_id", empty=True),
            Column(name="query", empty=True),
            Column(name="item_id"),
            Column(name="split"),
            Column(name="session_id", required=False, null=True),
        ),
    ),
}
"""An empty `query` browses, an empty `user_id` of a query is an unknown visitor; one of them must be set."""

_KINDS: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = {
    "text": ("string", lambda kind: kind == pa.string()),
    "texts": ("list of strings", lambda kind: kind == TEXTS),
    "number": ("number", lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind)),
    "time": ("timestamp", lambda kind: kind == TIMESTAMP),
}


def check(dataset: Dataset) -> None:
    """Raise `InvalidInput` that lists every problem of the dataset; its fields are "table.column".

    The tables must have canonical types (`tables.canonical_types`); their rows may be in any order.
    """
    problems = tuple(find_problems(dataset))
    if problems:
        raise InvalidInput(*(problem.violation() for problem in problems))


def find_problems(dataset: Dataset) -> Iterator[Problem]:
    """Yield every problem: of single columns first, then of keys, references and times."""
    sound = set()
    for name, table in dataset.tables().items():
        yield from _column_problems(name, table)
        usable = {c.name for c in _columns_of(name, table) if _has_kind(table, c)}
        sound |= {f"{name}.{column}" for column in usable}
        if SCHEMA[name].key in usable:
            yield from _duplicates(name, table, SCHEMA[name].key)
    references = [
        ("events", "user_id"),
        ("events", "item_id"),
        ("queries", "user_id"),
        ("queries", "item_id"),
    ]
    for name, column in references:
        target = {"user_id": "users", "item_id": "items"}[column]
        if {f"{name}.{column}", f"{target}.{column}"} <= sound:
            yield from _unknown(name, dataset.tables()[name], target, dataset.tables()[target], column)
    if {"queries.query", "queries.user_id"} <= sound:
        texts, users = dataset.queries.column("query"), dataset.queries.column("user_id")
        neither = pc.and_(pc.equal(pc.utf8_trim_whitespace(texts), ""), pc.equal(users, ""))
        yield from _where("queries", "query", "is empty and so is its user_id", neither)
    if {"queries.split", "queries.timestamp"} <= sound:
        yield from _split_problems(dataset.queries)


def _columns_of(name: str, table: pa.Table) -> tuple[Column, ...]:
    """Return the columns to check: those of the schema, then the static ones that the table adds."""
    declared = SCHEMA[name].columns
    known = {column.name for column in declared}
    extra = [column for column in table.column_names if column not in known]
    if not SCHEMA[name].static:
        return declared
    return (*declared, *(Column(name=c, kind=_static_kind(table, c), null=True, empty=True) for c in extra))


def _static_kind(table: pa.Table, column: str) -> str:
    kind = table.schema.field(column).type
    return next((name for name in ("text", "texts", "number") if _KINDS[name][1](kind)), "static")


def _has_kind(table: pa.Table, column: Column) -> bool:
    if table.column_names.count(column.name) != 1 or column.kind not in _KINDS:
        return False
    return _KINDS[column.kind][1](table.schema.field(column.name).type)


def _column_problems(name: str, table: pa.Table) -> Iterator[Problem]:
    for column in _columns_of(name, table):
        held = table.column_names.count(column.name)
        if held != 1 and (held or column.required):
            fault = "appears more than once" if held else "is missing"
            yield Problem(table=name, column=column.name, description=fault)
        elif held and not _has_kind(table, column):
            kind = table.schema.field(column.name).type
            wanted = _KINDS[column.kind][0] if column.kind in _KINDS else "string, list of strings or number"
            yield Problem(table=name, column=column.name, description=f"is {kind}, not {wanted}")
        elif held:
            yield from _value_problems(name, column, table.column(column.name))
    if not SCHEMA[name].static:
        known = {column.name for column in SCHEMA[name].columns}
        for extra in sorted(set(table.column_names) - known):
            yield Problem(table=name, column=extra, description="is not a column of this table")


def _value_problems(name: str, column: Column, values: pa.ChunkedArray) -> Iterator[Problem]:
    if not column.null:
        yield from _where(name, column.name, "has no value", pc.is_null(values))
    if column.kind == "text" and not column.empty:
        yield from _where(name, column.name, "is empty", pc.equal(values, ""))
    if column.kind == "texts":
        yield from _where(name, column.name, "lists a null", _lists_null(values))
    if column.kind == "number":
        finite = pc.is_finite(values)
        yield from _where(name, column.name, "is NaN or infinite", pc.invert(finite))


def _lists_null(values: pa.ChunkedArray) -> pa.Array:
    """Return which rows list a null."""
    lists = values.combine_chunks()
    rows, parts = pc.list_parent_indices(lists), pc.list_flatten(lists)
    holding = np.zeros(len(values), np.bool_)
    holding[pc.filter(rows, pc.is_null(parts)).to_numpy()] = True
    return pa.array(holding)


def _duplicates(name: str, table: pa.Table, key: str) -> Iterator[Problem]:
    encoded = pc.dictionary_encode(table.column(key)).combine_chunks()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    repeated = np.ones(len(codes), dtype=np.bool_)
    repeated[np.unique(codes, return_index=True)[1]] = False
    yield from _where(name, key, "repeats an earlier id", pa.array(repeated & (codes >= 0)))


def _unknown(name: str, table: pa.Table, target: str, known: pa.Table, column: str) -> Iterator[Problem]:
    values = table.column(column)
    strange = pc.invert(pc.is_in(values, value_set=known.column(column)))
    # Empty and null ids are the column check's business, or allowed (a query's unknown visitor).
    strange = pc.and_(strange, pc.fill_null(pc.not_equal(values, ""), False))
    yield from _where(name, column, f"is not in {target}.{column}", strange)


def _split_problems(queries: pa.Table) -> Iterator[Problem]:
    """Yield unknown splits and queries that are earlier than one of the split before theirs."""
    labels = queries.column("split")
    known = pc.is_in(labels, value_set=pa.array(SPLITS))
    filled = pc.fill_null(pc.not_equal(labels, ""), False)
    yield from _where(
        "queries", "split", f"is none of {', '.join(SPLITS)}", pc.and_(pc.invert(known), filled)
    )
    if queries.column("timestamp").null_count:
        return
    times_ms = timestamps_ms(queries)
    ranks = pc.fill_null(pc.index_in(labels, value_set=pa.array(SPLITS)), -1).to_numpy()
    for rank in range(1, len(SPLITS)):
        earlier = times_ms[(ranks >= 0) & (ranks < rank)]
        if len(earlier):
            late = (ranks == rank) & (times_ms < earlier.max())
            description = f"is {SPLITS[rank]} before the last {' or '.join(SPLITS[:rank])} query"
            yield from _where("queries", "split", description, pa.array(late))


def _where(table: str, column: str, description: str, mask: pa.Array | pa.ChunkedArray) -> Iterator[Problem]:
    """Yield one problem if any row of the mask is set; null counts as not set."""
    rows = np.flatnonzero(pc.fill_null(mask, False).to_numpy(zero_copy_only=False))
    if len(rows):
        yield Problem(
            table=table, column=column, description=description, first_row=int(rows[0]), count=len(rows)
        )
