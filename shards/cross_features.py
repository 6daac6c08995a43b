"""Cross features: one number per candidate from the request, the candidate and what stages said of it.

Legend: C = candidates, N = items, H = events, L = ids an item. Each item's text is encoded once,
when the bundle opens; a request costs a few look-ups over [C, L].
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Candidates
from shards.column_encoder import Floats, Ids, numbers, scale, texts
from shards.cross_kinds import (
    ChannelColumn,
    CrossKind,
    ExactId,
    HistoryCount,
    HistoryRecency,
    ItemNumber,
    NgramOverlap,
    QueryOverlap,
    ReciprocalRank,
)
from shards.history_rows import HistoryRows
from shards.search_context import SearchContext
from shards.tokenizer import UNKNOWN, Tokenizer
from shards.words import encode_ngrams


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossRequest:
    """What a cross feature may look at: `rows` [C] are the candidates' rows in the item table."""

    context: SearchContext
    history: HistoryRows
    rows: Ids
    candidates: Candidates


CrossEncoder = Callable[[CrossRequest], NDArray[np.floating[Any]]]
TextEncoder = Callable[[Sequence[str]], Ids]
Columns = Mapping[str, Sequence[object]]


def cross_encoder(feature: CrossKind, tokenizer: Tokenizer | None, columns: Columns) -> CrossEncoder:
    """Return the function that gives one feature [C]; `columns` [N] are the item table's."""
    match feature:
        case ChannelColumn() | ReciprocalRank():
            return _channel_encoder(feature)
        case HistoryCount():
            return lambda request: np.log1p(request.history.of(feature.actions).count_on(request.rows))
        case HistoryRecency():
            return lambda request: np.exp2(
                -request.history.of(feature.actions).newest_age_on(request.rows) / feature.half_life_days
            )
        case QueryOverlap():
            return _query_overlap(feature, tokenizer, texts(columns[_column(feature.source)]))
        case NgramOverlap():
            return _overlap_encoder(
                _ngram_encoder(feature), texts(columns[_column(feature.source)]), ignored=0
            )
        case ExactId():
            return _exact_encoder(texts(columns[_column(feature.source)]))
        case ItemNumber():
            number_N = numbers(columns[_column(feature.source)])
            scaled_N = scale(number_N, log1p=feature.log1p, mean=feature.mean, std=feature.std)
            return lambda request: scaled_N[request.rows]


def _column(source: str) -> str:
    return source.removeprefix("item.")


def _channel_encoder(feature: ChannelColumn | ReciprocalRank) -> CrossEncoder:
    def encode(request: CrossRequest) -> Floats:
        values_C = request.candidates.columns.get(feature.column)
        if values_C is None:
            values_C = np.full(len(request.rows), np.nan, dtype=np.float32)
        if isinstance(feature, ReciprocalRank):
            return np.where(values_C >= 1, 1 / np.maximum(values_C, 1), 0).astype(np.float32)
        return scale(
            values_C, log1p=feature.log1p, mean=feature.mean, std=feature.std, missing=feature.missing
        )

    return encode


def _query_overlap(feature: QueryOverlap, tokenizer: Tokenizer | None, item_texts: list[str]) -> CrossEncoder:
    if tokenizer is None:
        raise ValueError(f"feature {feature.name!r} needs a tokeniser")
    return _overlap_encoder(
        lambda some: tokenizer.encode_batch(some, feature.max_len), item_texts, ignored=UNKNOWN
    )


def _ngram_encoder(feature: NgramOverlap) -> TextEncoder:
    return lambda some: encode_ngrams(some, n=feature.n, buckets=feature.buckets, max_len=feature.max_len)


def _overlap_encoder(encode_texts: TextEncoder, item_texts: list[str], *, ignored: int) -> CrossEncoder:
    """Return the share of the query's distinct ids that an item holds; ids up to `ignored` match nothing."""
    ids_NL = _distinct_ids(encode_texts(item_texts))
    id_count = int(ids_NL.max(initial=0)) + 1

    def encode(request: CrossRequest) -> Floats:
        query_ids = np.unique(encode_texts([request.context.query]))
        query_ids = query_ids[query_ids > 0]
        wanted = np.zeros(id_count, dtype=np.float32)
        wanted[query_ids[(query_ids > ignored) & (query_ids < id_count)]] = 1.0 / max(1, len(query_ids))
        share_C: Floats = wanted[ids_NL[request.rows]].sum(axis=1)
        return share_C

    return encode


def _distinct_ids(ids_NL: Ids) -> NDArray[np.int32]:
    """Return the ids of each row without repeats, as [N, L'] with 0 for what was dropped."""
    sorted_NL = np.sort(ids_NL.astype(np.int32), axis=1)
    repeated_NL = np.zeros(sorted_NL.shape, dtype=bool)
    repeated_NL[:, 1:] = sorted_NL[:, 1:] == sorted_NL[:, :-1]
    distinct_NL = np.sort(np.where(repeated_NL, 0, sorted_NL), axis=1)
    longest = int((distinct_NL > 0).sum(axis=1).max(initial=0))
    return np.ascontiguousarray(distinct_NL[:, distinct_NL.shape[1] - longest :])


def _exact_encoder(item_texts: list[str]) -> CrossEncoder:
    rows: dict[str, list[int]] = {}
    for row, text in enumerate(item_texts):
        if folded := text.strip().casefold():
            rows.setdefault(folded, []).append(row)

    def encode(request: CrossRequest) -> Floats:
        found = rows.get(request.context.query.strip().casefold(), [])
        return np.isin(request.rows, found).astype(np.float32)

    return encode
