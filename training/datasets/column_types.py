"""Columns of a shop's own tables in our types, where they hold the same in another one."""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from training.datasets.schema import SCHEMA, TEXTS
from training.datasets.tables import TIMESTAMP, canonical_types

_EPOCH_UNITS = ((10**17, "ns"), (10**14, "us"), (10**11, "ms"), (0, "s"))
"""A count since 1970 that is larger is in this unit: 10**11 s are 3,000 years, as ms it is 1973."""

_MADE = frozenset(
    {"popularity", "popularity_daily", "trending", "prior", "trending_prior", "age_days", "idle_days"}
)
"""Columns that Headrace makes of items, as of each moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """A table in our types, and a sentence for each column that was left out or read as something else."""

    table: pa.Table
    notes: tuple[str, ...]


def with_our_types(name: str, table: pa.Table) -> Typed:
    """Return the table with ids as text, dates and counts since 1970 as times, and no column of other kinds.

    What cannot be read as what it must be stays as it is, for the schema check to name.
    """
    kinds = {column.name: column.kind for column in SCHEMA[name].columns}
    columns, notes = {}, []
    for column in table.column_names:
        values = canonical_types(table.select([column])).column(column)
        if column in kinds:
            columns[column], note = _declared(values, kinds[column])
        elif not SCHEMA[name].static:
            note = "is left out: there is no such column"
        elif column in _MADE or column.startswith("popularity_"):
            note = "is left out: Headrace makes its own, as of each moment"
        else:
            static, note = _static(values)
            columns |= {} if static is None else {column: static}
        notes += [f"{name}.{column} {note}"] if note else []
    return Typed(table=pa.table(columns), notes=tuple(notes))


def _declared(values: pa.ChunkedArray, kind: str) -> tuple[pa.ChunkedArray, str]:
    held = values.type
    if kind == "text" and pa.types.is_integer(held):
        return values.cast(pa.string()), ""
    if kind == "text" and pa.types.is_floating(held) and _whole(values):
        return values.cast(pa.int64()).cast(pa.string()), "has whole numbers, read as text"
    if kind == "number" and (pa.types.is_decimal(held) or pa.types.is_boolean(held)):
        return values.cast(pa.float64(), safe=False), ""
    return _time(values) if kind == "time" else (values, "")


def _whole(values: pa.ChunkedArray) -> bool:
    return bool(pc.all(pc.and_(pc.is_finite(values), pc.equal(pc.floor(values), values))).as_py())


def _time(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray, str]:
    held = values.type
    if pa.types.is_date(held):
        return values.cast(pa.timestamp("ms")).cast(TIMESTAMP), ""
    if pa.types.is_integer(held) and len(values) > values.null_count:
        largest = abs(pc.max(values).as_py())
        unit = next(unit for above, unit in _EPOCH_UNITS if largest >= above)
        times = values.cast(pa.int64()).cast(pa.timestamp(unit, tz="UTC")).cast(TIMESTAMP, safe=False)
        return times, f"is read as {unit} since 1970"
    if held == pa.string():
        for kind in (TIMESTAMP, pa.timestamp("ms")):
            try:
                return values.cast(kind).cast(TIMESTAMP), "is read as times"
            except pa.ArrowInvalid:
                continue
    return values, ""


def _static(values: pa.ChunkedArray) -> tuple[pa.ChunkedArray | None, str]:
    held = values.type
    if values.null_count == len(values):
        return None, "is left out: it has no value"
    if pa.types.is_boolean(held):
        return pc.if_else(values, "true", "false"), ""
    if pa.types.is_decimal(held):
        return values.cast(pa.float64()), ""
    if held in (pa.string(), TEXTS) or pa.types.is_integer(held) or pa.types.is_floating(held):
        return values, ""
    return None, f"is left out: {held} is no text, list of texts or number"
