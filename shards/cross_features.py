"""Cross features: one number per candidate from the request, the candidate and what stages said of it.

Legend: C = candidates, N = items, H = events, G = features of a group. What reads items' texts is in
`text_crosses`.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.column_encoder import Floats, numbers, scale, texts
from shards.cross_kinds import (
    ChannelColumn,
    CrossKind,
    HistoryCount,
    HistoryGap,
    HistoryRecency,
    HistoryShare,
    HistorySize,
    ItemNumber,
    QueryTakes,
    ReciprocalRank,
    WordMatch,
)
from shards.cross_request import CrossEncoder, CrossRequest
from shards.history_rows import HistoryRows
from shards.query_takes import takes_of
from shards.text_crosses import text_encoder
from shards.tokenizer import Tokenizer

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
            return text_encoder(features, tokenizer, texts(columns[_column(of_text.source)]))


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
