"""Cross features of items' texts: each is encoded once, when the bundle opens; a request looks it up [C, L].

Legend: C = candidates, N = items, L = ids an item, P = places in a text.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from shards.column_encoder import Floats, Ids
from shards.cross_kinds import CrossKind, HistoryWords, NgramOverlap, QueryOverlap, WordMatch, WordPlaces
from shards.cross_request import CrossEncoder, CrossRequest
from shards.tokenizer import UNKNOWN, Tokenizer
from shards.word_match import item_words
from shards.words import encode_ngrams

TextEncoder = Callable[[Sequence[str]], Ids]


def text_encoder(
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
