"""Cross features: one number per candidate from the request, the candidate and what stages said of it.

Legend: C = candidates, N = items, H = events, L = ids an item, G = features of a group. Each item's text is
encoded once, when the bundle opens; a request costs a few look-ups over [C, L].
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Candidates
from shards.column_encoder import Floats, Ids, numbers, scale, texts
from shards.cross_kinds import (
    ChannelColumn,
    CrossKind,
    HistoryCount,
    HistoryGap,
    HistoryRecency,
    HistoryShare,
    HistorySize,
    HistoryWords,
    ItemNumber,
    NgramOverlap,
    QueryOverlap,
    QueryTakes,
    ReciprocalRank,
    WordMatch,
    WordPlaces,
)
from shards.history_rows import HistoryRows
from shards.query_takes import takes_of
from shards.search_context import SearchContext
from shards.tokenizer import UNKNOWN, Tokenizer
from shards.word_match import item_words
from shards.words import encode_ngrams


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossRequest:
    """What a cross feature may look at: `rows` [C] are the candidates' rows in the item table."""

    context: SearchContext
    history: HistoryRows
    rows: Ids
    candidates: Candidates


CrossEncoder = Callable[[CrossRequest], NDArray[np.floating[Any]]]
"""Gives one feature [C], or several [C, G]."""
TextEncoder = Callable[[Sequence[str]], Ids]
Columns = Mapping[str, Sequence[object]]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossGroup:
    """Features that are computed at once, and where each of them stands among all."""

    positions: slice | tuple[int, ...]
    """A slice where they stand side by side, which is a quarter of the time of anything else."""
    size: int
    encode: CrossEncoder


def cross_groups(
    features: Sequence[CrossKind], tokenizer: Tokenizer | None, columns: Columns
) -> list[CrossGroup]:
    """Return the functions that give all features; `columns` [N] are the item table's.

    What all candidates have as numbers already costs a few calls of numpy however many features it makes.
    """
    kinds: dict[Hashable, list[int]] = {}
    for position, feature in enumerate(features):
        kinds.setdefault(_kind_of(feature, position), []).append(position)
    return [
        CrossGroup(
            positions=_side_by_side(positions),
            size=len(positions),
            encode=_encoder([features[position] for position in positions], tokenizer, columns),
        )
        for positions in kinds.values()
    ]


def _side_by_side(positions: Sequence[int]) -> slice | tuple[int, ...]:
    first, last = positions[0], positions[-1]
    return slice(first, last + 1) if last - first + 1 == len(positions) else tuple(positions)


def _kind_of(feature: CrossKind, position: int) -> Hashable:
    """Return what features that can be computed at once have in common."""
    match feature:
        case ChannelColumn():
            return ChannelColumn, feature.log1p
        case ReciprocalRank() | ItemNumber():
            return (type(feature),)
        case HistoryRecency():
            return HistoryRecency, feature.actions
        case QueryTakes() | WordMatch():
            return type(feature), feature.source
        case _:
            return position


def _encoder(features: Sequence[CrossKind], tokenizer: Tokenizer | None, columns: Columns) -> CrossEncoder:
    """Return the function that gives features of one kind."""
    match features[0]:
        case ChannelColumn():
            return _channel_encoder([f for f in features if isinstance(f, ChannelColumn)])
        case ReciprocalRank():
            return _rank_encoder([f for f in features if isinstance(f, ReciprocalRank)])
        case ItemNumber():
            return _number_encoder([f for f in features if isinstance(f, ItemNumber)], columns)
        case HistoryRecency():
            return _recency_encoder([f for f in features if isinstance(f, HistoryRecency)])
        case HistoryCount() | HistoryShare() | HistorySize():
            return _history_encoder(features[0])
        case HistoryGap() as gap:
            return _gap_encoder(gap, columns)
        case QueryTakes() as takes:
            return _takes_encoder([f for f in features if isinstance(f, QueryTakes)], takes.source, columns)
        case of_text:
            return _text_encoder(features, tokenizer, texts(columns[_column(of_text.source)]))


def _text_encoder(
    features: Sequence[CrossKind], tokenizer: Tokenizer | None, item_texts: list[str]
) -> CrossEncoder:
    """Return the function that gives features of one kind that read items' texts."""
    match features[0]:
        case WordMatch():
            return _match_encoder([f for f in features if isinstance(f, WordMatch)], item_texts)
        case WordPlaces() as places:
            return _places_encoder(places, item_texts)
        case HistoryWords() as named:
            return _history_words_encoder(named, item_texts)
        case QueryOverlap() as overlap:
            return _query_overlap(overlap, tokenizer, item_texts)
        case NgramOverlap() as overlap:
            return _overlap_encoder(_ngram_encoder(overlap), item_texts, ignored=0)
        case _:
            return _exact_encoder(item_texts)


def _column(source: str) -> str:
    return source.removeprefix("item.")


def _channel_encoder(features: Sequence[ChannelColumn]) -> CrossEncoder:
    mean_G, std_G, missing_G = np.array([(f.mean, f.std, f.missing) for f in features], np.float64).T

    def encode(request: CrossRequest) -> Floats:
        values_CG = _columns_of(request, [feature.column for feature in features])
        return scale(values_CG, log1p=features[0].log1p, mean=mean_G, std=std_G, missing=missing_G)

    return encode


def _rank_encoder(features: Sequence[ReciprocalRank]) -> CrossEncoder:
    def encode(request: CrossRequest) -> Floats:
        ranks_CG = _columns_of(request, [feature.column for feature in features])
        return np.where(ranks_CG >= 1, 1 / np.maximum(ranks_CG, 1), 0).astype(np.float32)

    return encode


def _columns_of(request: CrossRequest, names: Sequence[str]) -> Floats:
    """Return columns that earlier stages gave [C, G]; NaN where they did not."""
    values_CG = np.full((len(request.rows), len(names)), np.nan, dtype=np.float32)
    for g, name in enumerate(names):
        if name in request.candidates.columns:
            values_CG[:, g] = request.candidates.columns[name]
    return values_CG


def _number_encoder(features: Sequence[ItemNumber], columns: Columns) -> CrossEncoder:
    scaled_NG = np.stack(
        [scale(numbers(columns[_column(f.source)]), log1p=f.log1p, mean=f.mean, std=f.std) for f in features],
        axis=1,
    )
    return lambda request: scaled_NG[request.rows]


def _recency_encoder(features: Sequence[HistoryRecency]) -> CrossEncoder:
    half_life_G = np.array([feature.half_life_days for feature in features])

    def encode(request: CrossRequest) -> NDArray[np.float64]:
        age_C = request.history.of(features[0].actions).newest_age_on(request.rows)
        recency_CG: NDArray[np.float64] = np.exp2(-age_C[:, np.newaxis] / half_life_G)
        return recency_CG

    return encode


def _history_encoder(feature: HistoryCount | HistoryShare | HistorySize) -> CrossEncoder:
    match feature:
        case HistoryCount():
            return lambda request: np.log1p(
                request.history.within(feature.within_days).of(feature.actions).count_on(request.rows)
            )
        case HistoryShare():
            return lambda request: request.history.of(feature.actions).visit_share_on(request.rows)
        case HistorySize():
            return lambda request: np.full(len(request.rows), np.log1p(_size(feature, request.history)))


def _size(feature: HistorySize, history: HistoryRows) -> float:
    return history.within(feature.within_days).of(feature.actions).size(feature.of)


def _gap_encoder(feature: HistoryGap, columns: Columns) -> CrossEncoder:
    raw_N = numbers(columns[_column(feature.source)])
    scaled_N = scale(raw_N, log1p=feature.log1p, mean=feature.mean, std=feature.std)

    def encode(request: CrossRequest) -> Floats:
        if not len(request.history.rows):
            return np.zeros(len(request.rows), np.float32)
        gap_C: Floats = scaled_N[request.rows] - scaled_N[request.history.rows].mean()
        return gap_C

    return encode


def _takes_encoder(features: Sequence[QueryTakes], source: str, columns: Columns) -> CrossEncoder:
    takes = takes_of(columns[_column(source)])

    def encode(request: CrossRequest) -> Floats:
        found = takes.measures(request.context.query, request.rows)
        return np.stack([found[feature.of] for feature in features], axis=1)

    return encode


def _match_encoder(features: Sequence[WordMatch], item_texts: list[str]) -> CrossEncoder:
    held = item_words(item_texts)

    def encode(request: CrossRequest) -> Floats:
        found = held.measures(request.context.query, request.rows)
        return np.stack([found[feature.of] for feature in features], axis=1)

    return encode


def _places_encoder(feature: WordPlaces, item_texts: list[str]) -> CrossEncoder:
    held = item_words(item_texts)
    size = max(len(feature.lifts), held.ids_NL.shape[1] + 1)
    lift_LPP = np.zeros((size, size, size), np.float32)
    for n, lifts in enumerate(feature.lifts):
        if lifts:
            lift_LPP[n, :n, :n] = np.reshape(lifts, (n, n))

    def encode(request: CrossRequest) -> Floats:
        first_C, second_C = held.places(request.context.query, request.rows)
        lift_C = lift_LPP[held.count_N.take(request.rows).astype(np.int64), first_C, second_C]
        return np.where((first_C >= 0) & (second_C >= 0), lift_C, np.float32(0.0))

    return encode


def _history_words_encoder(feature: HistoryWords, item_texts: list[str]) -> CrossEncoder:
    held = item_words(item_texts)
    return lambda request: held.named_by(request.history.of(feature.actions).rows, request.rows)


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
        # A set of the few there are takes a tenth of the time of numpy's unique.
        query_ids = set(encode_texts([request.context.query])[0].tolist()) - {0}
        wanted = np.zeros(id_count, dtype=np.float32)
        wanted[[i for i in query_ids if ignored < i < id_count]] = 1.0 / max(1, len(query_ids))
        # `take` costs a sixth of what an index in brackets does.
        share_C: Floats = wanted.take(ids_NL.take(request.rows, axis=0)).sum(axis=1)
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
        found = rows.get(request.context.query.strip().casefold())
        if found is None:  # As for most queries.
            return np.zeros(len(request.rows), np.float32)
        return np.isin(request.rows, found).astype(np.float32)

    return encode
