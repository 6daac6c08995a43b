"""The forward index: item ids and static attributes, `items.parquet`.

Legend: N = items, C = candidates.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from shards.column_encoder import text_of
from shards.errors import CorruptBundle, FieldViolation, InvalidInput
from shards.feature_kinds import ITEM_ID_COLUMN
from shards.row_lookup import RowLookup
from shards.search_context import Filter, FilterClause

ITEMS_FILE = "items.parquet"

Mask = NDArray[np.bool_]


class ForwardIndex:
    """Items in row order; text forms and postings of an attribute are made when first asked for."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table
        self.item_ids: tuple[str, ...] = tuple(_item_ids(table))
        self._ids = np.array(self.item_ids, dtype=object)
        """The same ids, to take many at once."""
        self.names = tuple(table.column_names)
        """The names of the columns."""
        self.rows: Mapping[str, int] = {item: row for row, item in enumerate(self.item_ids)}
        self.lookup = RowLookup(self.rows)
        self.catalogue_rows: NDArray[np.int64] | None = None
        """Where each item stands in the whole catalogue [N], where these are a partition of one."""
        self._texts: dict[str, list[str]] = {}
        self._postings: dict[str, dict[str, NDArray[np.int64]]] = {}

    @classmethod
    def open(cls, path: Path) -> "ForwardIndex":
        """Return the index in a Parquet file; CorruptBundle where it is none or its ids are not unique."""
        try:
            # In this thread: Arrow's own would take the cores from those who serve.
            with pq.ParquetFile(path) as file:
                return cls(file.read(use_threads=False))
        except (pa.ArrowException, OSError, ValueError) as error:
            raise CorruptBundle(path.name, str(error)) from error

    def __len__(self) -> int:
        return len(self.item_ids)

    def columns(self, names: Sequence[str]) -> dict[str, Sequence[object]]:
        """Return raw columns [N] for `RequestEncoder`; CorruptBundle names one that is not there."""
        for name in names:
            if name not in self.names:
                raise CorruptBundle(ITEMS_FILE, f"has no column {name!r}, which a feature reads")
        return {name: self._table.column(name).to_pylist() for name in names}

    def rows_of(self, item_ids: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of each item [C]; -1 where it is not known."""
        return self.lookup.of(item_ids)

    def ids_at(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the ids of the items at `rows` [C]."""
        return tuple(self._ids[rows].tolist())

    def attributes(self, rows: Sequence[int], names: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """Return attributes as text of the items at `rows`; empty where an item has none.

        InvalidInput names each of `names` that is no attribute.
        """
        unknown = [i for i, name in enumerate(names) if name not in self.names]
        if unknown:
            raise InvalidInput(
                *(FieldViolation(f"attributes[{i}]", f"{names[i]!r} is not an attribute") for i in unknown)
            )
        return {name: tuple(map(self._texts_of(name).__getitem__, rows)) for name in names}

    def allowed(self, conditions: Filter) -> Mask:
        """Return which items [N] satisfy every clause; InvalidInput names each clause that cannot hold."""
        violations = [v for i, clause in enumerate(conditions) if (v := self._violation(i, clause))]
        if violations:
            raise InvalidInput(*violations)
        mask_N = np.ones(len(self), dtype=bool)
        for clause in conditions:
            mask_N &= self._matches(clause) != clause.negate
        return mask_N

    def _violation(self, index: int, clause: FilterClause) -> FieldViolation | None:
        where = f"filter.clauses[{index}]"
        ranged = clause.min is not None or clause.max is not None
        if clause.attribute not in self.names:
            return FieldViolation(f"{where}.attribute", f"{clause.attribute!r} is not an attribute")
        if ranged and not _is_number(self._table.schema.field(clause.attribute).type):
            return FieldViolation(f"{where}.range", f"{clause.attribute!r} is not a number")
        if not ranged and not clause.any_of:
            return FieldViolation(f"{where}.any_of", "neither values nor a range are given")
        return None

    def _matches(self, clause: FilterClause) -> Mask:
        mask_N = np.ones(len(self), dtype=bool)
        if clause.any_of:
            mask_N[:] = False
            if clause.attribute == ITEM_ID_COLUMN:
                rows = self.rows_of(clause.any_of)
                mask_N[rows[rows >= 0]] = True
                return mask_N
            postings = self._postings_of(clause.attribute)
            for value in clause.any_of:
                mask_N[postings.get(value, [])] = True
        if clause.min is not None or clause.max is not None:
            number_N = self._numbers_of(clause.attribute)
            low = -np.inf if clause.min is None else clause.min
            high = np.inf if clause.max is None else clause.max
            mask_N &= (number_N >= low) & (number_N <= high)
        return mask_N

    def _numbers_of(self, name: str) -> NDArray[np.float64]:
        return self._table.column(name).cast(pa.float64()).to_numpy()  # type: ignore[no-any-return]

    def _texts_of(self, name: str) -> list[str]:
        # Two threads may both make it; they make the same, and the last one stays.
        if name not in self._texts:
            values = self._table.column(name).to_pylist()
            self._texts[name] = [_display(value) for value in values]
        return self._texts[name]

    def _postings_of(self, name: str) -> dict[str, NDArray[np.int64]]:
        """Return the rows of each value; a list counts for each of its values, nothing for none."""
        if name not in self._postings:
            rows: dict[str, list[int]] = {}
            for row, value in enumerate(self._table.column(name).to_pylist()):
                for part in value if isinstance(value, list) else [value]:
                    if part is not None:
                        rows.setdefault(text_of(part), []).append(row)
            self._postings[name] = {value: np.array(found, dtype=np.int64) for value, found in rows.items()}
        return self._postings[name]


def _item_ids(table: pa.Table) -> list[str]:
    if ITEM_ID_COLUMN not in table.column_names:
        raise ValueError(f"has no column {ITEM_ID_COLUMN!r}")
    ids = table.column(ITEM_ID_COLUMN).to_pylist()
    if not all(isinstance(item, str) and item for item in ids):
        raise ValueError(f"column {ITEM_ID_COLUMN!r} must hold texts, none of them empty")
    if len(set(ids)) != len(ids):
        raise ValueError(f"column {ITEM_ID_COLUMN!r} holds an item twice")
    return ids  # type: ignore[no-any-return]


def _display(value: object) -> str:
    return ", ".join(text_of(part) for part in value) if isinstance(value, list) else text_of(value)


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind))
