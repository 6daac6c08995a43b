"""The one encoder for training and serving: raw requests, items and candidates to arrays.

Legend: B = requests, N = items, C = candidates, K = cross features.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Candidates
from shards.column_encoder import ColumnEncoder, Floats, Ids, column_encoder, encode_lists, texts
from shards.cross_features import Columns, CrossGroup, cross_groups
from shards.cross_kinds import CrossKind
from shards.cross_request import CrossRequest
from shards.feature_kinds import (
    ITEM_ID_COLUMN,
    Category,
    HistoryAges,
    HistoryCategories,
    HistoryCategory,
    HistoryItems,
    HistoryKind,
    ItemId,
    ItemRows,
    ValueKind,
)
from shards.features import Feature, FeatureSpec
from shards.history_rows import HistoryRows, history_rows
from shards.row_lookup import RowLookup
from shards.search_context import SearchContext
from shards.tokenizer import Tokenizer

Arrays = dict[str, NDArray[Any]]


class RequestEncoder:
    """Encodes by one spec for one item table; threads may share it.

    `item_rows` gives each item's row; `item_columns` are the table's columns that
    `spec.item_columns` names, in the order of the rows, and may be left out where no cross
    feature and no history reads them. ValueError where the spec needs a tokeniser or a column that is not
    there.
    """

    def __init__(
        self,
        spec: FeatureSpec,
        tokenizer: Tokenizer | None,
        item_rows: Mapping[str, int] | RowLookup,
        item_columns: Columns | None = None,
    ) -> None:
        self._known = item_rows if isinstance(item_rows, RowLookup) else RowLookup(item_rows)
        self._request_values = _column_encoders(spec.on("request"), tokenizer)
        self._item_values = _column_encoders(spec.on("item"), tokenizer)
        self._histories = [feature for feature in spec.on("request") if isinstance(feature, HistoryKind)]
        self._history_ids = {
            feature.name: _ids_of_items(feature, len(item_rows), item_columns or {})
            for feature in self._histories
            if isinstance(feature, HistoryCategory | HistoryCategories)
        }
        self._item_id_names = [feature.name for feature in spec.on("item") if isinstance(feature, ItemId)]
        self._item_lists = [feature for feature in spec.on("item") if isinstance(feature, ItemRows)]
        self._crosses = _cross_groups(spec, tokenizer, len(item_rows), item_columns or {})
        self._cross_count = sum(group.size for group in self._crosses)
        self.cross_names = spec.cross_names
        self._last: tuple[SearchContext, HistoryRows] | None = None

    def encode_request(self, context: SearchContext) -> Arrays:
        """Return the request features by name, each with a leading dimension of 1."""
        return self.encode_requests([context])

    def encode_requests(self, contexts: Sequence[SearchContext]) -> Arrays:
        """Return the request features by name: ids int64 [B] or [B, L], numbers float32 [B]."""
        arrays = {
            name: encode([read_source(context, source) for context in contexts])
            for name, (source, encode) in self._request_values.items()
        }
        if self._histories:
            arrays |= self.encode_histories([self._history(context) for context in contexts])
        return arrays

    def encode_histories(self, histories: Sequence[HistoryRows]) -> Arrays:
        """Return the features of histories by name: ids int64 [B, L]."""
        return {feature.name: self._encode_history(feature, histories) for feature in self._histories}

    def _encode_history(self, feature: HistoryKind, histories: Sequence[HistoryRows]) -> Ids:
        """Return ids [B], or [B, L] newest last and padded with 0 on the right."""
        if isinstance(feature, HistoryCategory):
            return most_common(feature, self._history_ids[feature.name], histories)
        ids_BL = np.zeros((len(histories), feature.max_len), dtype=np.int64)
        for ids_L, history in zip(ids_BL, histories, strict=True):
            newest = history.of(feature.actions).newest(feature.max_len)
            match feature:
                case HistoryItems():
                    ids = newest.rows + 1
                case HistoryAges():
                    boundaries = np.array(feature.boundaries_days)
                    ids = 1 + np.searchsorted(boundaries, newest.ages_days, side="right")
                case HistoryCategories():
                    ids = self._history_ids[feature.name][newest.rows]
            ids_L[: len(ids)] = ids
        return ids_BL

    def _history(self, context: SearchContext) -> HistoryRows:
        """Return the history of a search, looked up once for its request and its cross features."""
        last = self._last
        if last is not None and last[0] is context:
            return last[1]
        history = history_rows(context, self._known)
        self._last = context, history
        return history

    def encode_items(self, columns: Columns) -> Arrays:
        """Return the item features by name: ids int64 [N] or [N, L], numbers float32 [N].

        ValueError names a column that the spec reads and `columns` lacks.
        """
        arrays = {
            name: encode(_column(columns, source.removeprefix("item.")))
            for name, (source, encode) in self._item_values.items()
        }
        if self._item_id_names:
            ids = texts(_column(columns, ITEM_ID_COLUMN))
            id_N = self._known.of(ids) + 1
            arrays |= dict.fromkeys(self._item_id_names, id_N)
        for feature in self._item_lists:
            lists = _column(columns, feature.source.removeprefix("item."))
            arrays[feature.name] = encode_lists(lists, self._known.by_id, feature.max_len, first=1)
        return arrays

    def encode_cross(self, context: SearchContext, rows: Ids, candidates: Candidates) -> Floats:
        """Return float32 [C, K] in the order of `spec.cross_names`.

        `rows` [C] are the candidates' rows in the item table, all known; ValueError otherwise.
        """
        if len(rows) != len(candidates) or rows.min(initial=0) < 0:
            raise ValueError("every candidate needs a row of the item table")
        request = CrossRequest(
            context=context,
            history=self._history(context),
            rows=rows,
            candidates=candidates,
        )
        cross_CK = np.empty((len(rows), self._cross_count), dtype=np.float32)
        for group in self._crosses:
            values = group.encode(request)
            cross_CK[:, group.positions] = values if values.ndim == 2 else values[:, np.newaxis]
        return cross_CK


def read_source(context: SearchContext, source: str) -> object:
    """Return the raw value that a request-side source names; None where the request lacks it."""
    root, _, leaf = source.partition(".")
    match root:
        case "query":
            return context.query
        case "user_id":
            return context.user.user_id
        case "user":
            return context.user.features.get(leaf)
        case "context":
            return context.features.get(leaf)
        case "now":
            return _part_of_now(context.now_ms, leaf)
    raise ValueError(f"source {source!r} is not on the request side")


def _part_of_now(now_ms: int, part: str) -> int:
    """Return a part of the moment in UTC; Monday is weekday 0."""
    now = datetime.fromtimestamp(now_ms / 1000, UTC)
    return now.weekday() if part == "weekday" else int(getattr(now, part))


def _column_encoders(
    features: Sequence[Feature], tokenizer: Tokenizer | None
) -> dict[str, tuple[str, ColumnEncoder]]:
    """Return the source and the encoder of each feature made from one raw value."""
    return {
        feature.name: (feature.source, column_encoder(feature, tokenizer))
        for feature in features
        if isinstance(feature, ValueKind)
    }


def _cross_groups(
    spec: FeatureSpec, tokenizer: Tokenizer | None, item_count: int, columns: Columns
) -> list[CrossGroup]:
    crosses = [feature for feature in spec.on("cross") if isinstance(feature, CrossKind)]
    for feature in crosses:
        source: str = getattr(feature, "source", "")
        if source and len(_column(columns, source.removeprefix("item."))) != item_count:
            raise ValueError(f"item column of {feature.name!r} has not {item_count} values")
    return cross_groups(crosses, tokenizer, columns)


def _column(columns: Columns, name: str) -> Sequence[object]:
    if name not in columns:
        raise ValueError(f"item column {name!r} is missing")
    return columns[name]


def _ids_of_items(feature: HistoryCategory | HistoryCategories, item_count: int, columns: Columns) -> Ids:
    """Return the id of each item's value [N]."""
    category = Category(name=feature.name, source=feature.source, vocabulary=feature.vocabulary)
    id_N: Ids = column_encoder(category, None)(_column(columns, feature.source.removeprefix("item.")))
    if len(id_N) != item_count:
        raise ValueError(f"item column of {feature.name!r} has not {item_count} values")
    return id_N


def most_common(feature: HistoryCategory, id_N: Ids, histories: Sequence[HistoryRows]) -> Ids:
    """Return the id that most of each history's newest items have [B]; 0 where none has one."""
    id_B = np.zeros(len(histories), dtype=np.int64)
    for b, history in enumerate(histories):
        ids = id_N[history.of(feature.actions).rows[-feature.max_len :]]
        if (known := ids[ids > 0]).size:
            id_B[b] = np.bincount(known).argmax()
    return id_B
