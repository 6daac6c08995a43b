"""Engine "table": looks candidates up instead of computing them.

Files: index.parquet with columns key, item_id, score, a row for each candidate of a key; items.parquet.
Params: "key" says where the keys of a search come from, see `LookupParams`.
Legend: N = items, M = rows of the table, E = rows of the table under all keys of one search.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from shards.bundle import Bundle
from shards.candidates import Candidates
from shards.catalogue import Rows, best_allowed, item_rows_of, open_items, read_params, read_rows
from shards.errors import MismatchedBundle
from shards.event_weights import EventWeights, Weights
from shards.forward_index import ForwardIndex
from shards.grouped_rows import entries_of
from shards.search_context import Filter, SearchContext
from shards.words import normalised, words

TABLE_FILE = "index.parquet"
GLOBAL_KEY = ""

_KEYS = ("query", "query_token", "history", "user_items", "user", "global")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupParams:
    """Where the keys of a search come from, and how its history counts.

    "query": the normalised query (`shards.words.normalised`). "query_token": each of its distinct words,
    scores added up. "history": each item of the user's history, scores added up. "user_items": no table;
    the user's own items, scored by their events. "user": the user's id, for what was computed before.
    "global": one key, the empty text. Which events count, and how much, is told by `EventWeights`.
    """

    key: str
    half_life_days: float | None = None
    actions: tuple[str, ...] = ()
    once: bool = False
    expires_days: float | None = None
    newest_only: bool = False

    def __post_init__(self) -> None:
        if self.key not in _KEYS:
            raise ValueError(f"key {self.key!r} is none of {', '.join(_KEYS)}")
        self._events()

    def weights(self, context: SearchContext) -> Weights:
        """Return the keys of a search."""
        match self.key:
            case "query":
                query = normalised(context.query)
                return {query: 1.0} if query else {}
            case "query_token":
                return dict.fromkeys(words(context.query), 1.0)
            case "user":
                return {context.user.user_id: 1.0} if context.user.user_id else {}
            case "global":
                return {GLOBAL_KEY: 1.0}
        return self._events().of(context.user.history, context.now_ms)

    def _events(self) -> EventWeights:
        return EventWeights(
            half_life_days=self.half_life_days,
            actions=self.actions,
            once=self.once,
            expires_days=self.expires_days,
            newest_only=self.newest_only,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Items and scores [M], grouped by key: key `i` has those from starts[i] to starts[i + 1]."""

    keys: Mapping[str, int]
    starts: NDArray[np.int64]
    item_rows: Rows
    scores: Floats

    @classmethod
    def grouped(cls, keys: Mapping[str, int], key_M: Rows, item_M: Rows, score_M: Floats) -> "Table":
        """Return the table of rows in any order: the number of a key, the row of an item and the score."""
        order = np.argsort(key_M, kind="stable")
        return cls(
            keys=keys,
            starts=np.searchsorted(key_M[order], np.arange(len(keys) + 1)),
            item_rows=item_M[order],
            scores=score_M[order],
        )

    def sums(self, weights: Weights, item_count: int) -> tuple[Rows, Floats]:
        """Return the items under any of the keys, by row, and their weighted scores added up."""
        found = [(i, weight) for key, weight in weights.items() if (i := self.keys.get(key)) is not None]
        at, weight_K = (np.array([each[part] for each in found]) for part in (0, 1))
        return self.sums_at(at.astype(np.int64), weight_K.astype(np.float64), item_count)

    def sums_at(self, at: Rows, weight_K: Floats, item_count: int) -> tuple[Rows, Floats]:
        """Return the same for keys by their number, each with its weight [K]."""
        rows_E, counts = entries_of(self.starts, at)
        weight_E = np.repeat(weight_K, counts)
        items_E = self.item_rows[rows_E]
        scores_E = weight_E * self.scores[rows_E]
        # Without any row numpy counts in whole numbers.
        sum_N = np.bincount(items_E, weights=scores_E, minlength=item_count).astype(np.float64, copy=False)
        touched = np.flatnonzero(np.bincount(items_E, minlength=item_count)).astype(np.int64)
        return touched, sum_N[touched]


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupTable:
    """Answers from a table, or from the user's own history where `table` is None."""

    items: ForwardIndex
    params: LookupParams
    table: Table | None

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Return the best `k` allowed items under the keys of the search, ties in the order of the items."""
        rows, scores = self._look_up(self.params.weights(context))
        return best_allowed(self.items, rows, scores, k, allowed, attributes, attribute_count)

    def _look_up(self, weights: Weights) -> tuple[Rows, Floats]:
        if self.table is not None:
            return self.table.sums(weights, len(self.items))
        rows = self.items.rows_of(tuple(weights))
        order = np.argsort(rows)
        rows, scores = rows[order], np.array(list(weights.values()), np.float64)[order]
        return rows[rows >= 0], scores[rows >= 0]


def open_lookup_table(bundle: Bundle, _device: str) -> LookupTable:
    """Open the engine; BundleError names the file at fault."""
    items = open_items(bundle)
    params = read_params(LookupParams, bundle)
    table = None if params.key == "user_items" else read_table(bundle.file(TABLE_FILE), items)
    return LookupTable(items=items, params=params, table=table)


def read_table(path: Path, items: ForwardIndex) -> Table:
    """Return the table in a Parquet file; BundleError where it is none or names items that are not there."""
    schema = pa.schema([("key", pa.string()), ("item_id", pa.string()), ("score", pa.float64())])
    table = read_rows(path, schema)
    scores_M = table.column("score").to_numpy()
    if table.column("key").null_count or not np.isfinite(scores_M).all():
        raise MismatchedBundle(path.name, "holds a missing key or a score that is not a finite number")
    item_rows_M = item_rows_of(table, items, path)
    keys = table.column("key").combine_chunks().dictionary_encode()
    numbers = {key: i for i, key in enumerate(keys.dictionary.to_pylist())}
    return Table.grouped(numbers, keys.indices.to_numpy().astype(np.int64), item_rows_M, scores_M)
