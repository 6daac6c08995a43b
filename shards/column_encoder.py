"""Columns of raw values to arrays: one code path for requests and items, training and serving.

Legend: N = values (requests or items), L = ids a value. Whatever the input, no output is NaN.
"""

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shards.feature_kinds import (
    Categories,
    Category,
    HashedId,
    Ngrams,
    Number,
    Quantile,
    Tokens,
    ValueKind,
)
from shards.tokenizer import Tokenizer
from shards.words import encode_ngrams

Ids = NDArray[np.int64]
Floats = NDArray[np.float32]
ColumnEncoder = Callable[[Sequence[object]], NDArray[Any]]

Scale = float | NDArray[np.float64]

LIMIT = 1e3
"""Scaled numbers are clipped here; an outlier may not swamp a model."""


def column_encoder(feature: ValueKind, tokenizer: Tokenizer | None) -> ColumnEncoder:
    """Return the encoder of one feature; ValueError where it needs a tokeniser and there is none.

    Tokens, Ngrams and Categories give int64 [N, L], Category, HashedId and Quantile int64 [N], Number float32
    [N].
    """
    match feature:
        case Tokens():
            return _tokens_encoder(feature, tokenizer)
        case Ngrams():
            return lambda values: encode_ngrams(
                texts(values), n=feature.n, buckets=feature.buckets, max_len=feature.max_len
            )
        case Category():
            known = _ids(feature.vocabulary)
            return lambda values: np.array([known.get(text_of(v), 0) for v in values], dtype=np.int64)
        case Categories():
            many = _ids(feature.vocabulary)
            return lambda values: encode_lists(values, many, feature.max_len)
        case HashedId():
            return lambda values: np.array(
                [_hashed(text_of(v), feature.buckets) for v in values], dtype=np.int64
            )
        case Number():
            return lambda values: scale(
                numbers(values), log1p=feature.log1p, mean=feature.mean, std=feature.std
            )
        case Quantile():
            boundaries = np.array(feature.boundaries)
            return lambda values: _buckets(numbers(values), boundaries)


def texts(values: Sequence[object]) -> list[str]:
    """Return each value as text; see `text_of`."""
    return [text_of(value) for value in values]


def text_of(value: object) -> str:
    """Return a value as text: missing is empty, 3.0 is "3", several are joined by a space."""
    if isinstance(value, str):
        return value
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list | tuple | np.ndarray):
        return " ".join(text_of(part) for part in value)
    return str(value)


def numbers(values: Sequence[object]) -> NDArray[np.float64]:
    """Return each value as a number [N]; NaN where it is missing, infinite or no number."""
    number_N = np.array([_number(value) for value in values], dtype=np.float64)
    return np.where(np.isfinite(number_N), number_N, np.nan)


def encode_lists(values: Sequence[object], known: Mapping[str, int], max_len: int, *, first: int = 0) -> Ids:
    """Return `first` plus the number of each value's known parts, in their order [N, L]; 0 pads."""
    ids_NL = np.zeros((len(values), max_len), dtype=np.int64)
    for ids_L, value in zip(ids_NL, values, strict=True):
        parts = value if isinstance(value, list | tuple | np.ndarray) else (value,)
        ids = [first + known[text] for part in parts if (text := text_of(part)) in known][:max_len]
        ids_L[: len(ids)] = ids
    return ids_NL


def scale(
    number_N: NDArray[np.floating[Any]], *, log1p: bool, mean: Scale, std: Scale, missing: Scale = 0.0
) -> Floats:
    """Return scaled, clipped numbers [N]; `missing` where there is none. Or [N, G], each G with its own."""
    raw_N = number_N.astype(np.float64)
    if log1p:
        raw_N = np.sign(raw_N) * np.log1p(np.abs(raw_N))
    scaled_N = np.clip((raw_N - mean) / std, -LIMIT, LIMIT)
    return np.where(np.isfinite(raw_N), scaled_N, missing).astype(np.float32)


def _buckets(number_N: NDArray[np.float64], boundaries: NDArray[np.float64]) -> Ids:
    bucket_N = 1 + np.searchsorted(boundaries, number_N, side="right")
    return np.where(np.isnan(number_N), 0, bucket_N).astype(np.int64)


def _tokens_encoder(feature: Tokens, tokenizer: Tokenizer | None) -> ColumnEncoder:
    if tokenizer is None:
        raise ValueError(f"feature {feature.name!r} needs a tokeniser")
    return lambda values: tokenizer.encode_batch(texts(values), feature.max_len)


def _hashed(text: str, buckets: int) -> int:
    return 1 + zlib.crc32(text.encode("utf-8", "surrogatepass")) % buckets if text else 0


def _ids(vocabulary: tuple[str, ...]) -> dict[str, int]:
    return {value: i for i, value in enumerate(vocabulary, start=1)}


def _number(value: object) -> float:
    if isinstance(value, int | float | np.number | np.bool_):
        try:
            return float(value)
        except OverflowError:
            return math.nan
    return math.nan
