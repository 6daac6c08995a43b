"""What a gate shall know of queries, words and items, from what was known at a moment."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pyarrow as pa

from shards.column_encoder import text_of
from shards.gate_knowledge import STATISTICS, Floats, GateKnowledge, Keys, key_of, keys_of
from shards.words import normalised, words
from training.lookup_tables import weighted_queries
from training.snapshot import Snapshot

Takes = Mapping[str, Mapping[str, float]]
"""Decayed takes of items, by item, after each text."""


def gate_knowledge(
    known: Snapshot, *, text: Sequence[str], half_life_days: float, max_queries: int
) -> GateKnowledge:
    """Return the knowledge of a moment; `text` names the item columns that make a title.

    Of more than `max_queries` different queries those with the most takes are kept.
    """
    by_query, by_word = _takes(weighted_queries(known.queries, known.now_ms, half_life_days))
    kept = sorted(by_query, key=lambda query: (-sum(by_query[query].values()), query))[:max_queries]
    query_Q, query_stats_QS, top_item_Q = _statistics({query: by_query[query] for query in kept})
    titles = _titles(known.items, text)
    word_W, word_stats_WS, idf_W = _words(by_word, titles)
    item_N, starts_N1, title_words_T = _packed(titles)
    return GateKnowledge(
        query_Q=query_Q,
        query_stats_QS=query_stats_QS,
        top_item_Q=top_item_Q,
        word_W=word_W,
        word_stats_WS=word_stats_WS,
        idf_W=idf_W,
        item_N=item_N,
        starts_N1=starts_N1,
        title_words_T=title_words_T,
    )


def _takes(weighted: Iterable[tuple[str, str, float]]) -> tuple[Takes, Takes]:
    """Return the takes by normalised query and by word."""
    by_query: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    by_word: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for query, item_id, weight in weighted:
        if text := normalised(query):
            by_query[text][item_id] += weight
            for word in set(words(text)):
                by_word[word][item_id] += weight
    return by_query, by_word


def _titles(items: pa.Table, text: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Return the distinct words of each item's texts."""
    columns = (items.column(name).to_pylist() for name in ("item_id", *text))
    return {
        item_id: tuple(dict.fromkeys(word for part in parts for word in words(text_of(part))))
        for item_id, *parts in zip(*columns, strict=True)
    }


def _statistics(takes: Takes) -> tuple[Keys, Floats, Keys]:
    """Return rising keys, the statistics of each, and the key of the item that was taken most."""
    keys = keys_of(takes)
    stats = np.zeros((len(keys), STATISTICS), np.float32)
    tops = np.zeros(len(keys), np.uint64)
    for row, found in enumerate(takes.values()):
        weights = np.array(list(found.values()))
        total = weights.sum()
        share = weights / total
        stats[row] = (total, share.max(), -(share * np.log(np.maximum(share, 1e-12))).sum())
        tops[row] = key_of(min(found, key=lambda item_id: (-found[item_id], item_id)))
    order = np.argsort(keys)
    return keys[order], stats[order], tops[order]


def _words(by_word: Takes, titles: Mapping[str, Sequence[str]]) -> tuple[Keys, Floats, Floats]:
    """Return rising keys of all words of queries and titles, their statistics and their weights."""
    counts: dict[str, int] = defaultdict(int)
    for title in titles.values():
        for word in title:
            counts[word] += 1
    vocabulary = sorted(by_word.keys() | counts.keys())
    keys, order = keys_of(vocabulary), np.argsort(keys_of(vocabulary))
    taken, stats, _ = _statistics(by_word)
    all_stats = np.zeros((len(keys), STATISTICS), np.float32)
    all_stats[np.searchsorted(keys[order], taken)] = stats
    # Half a title stands for none, as in `GateKnowledge.unknown_idf`.
    found = np.array([counts.get(word, 0) or 0.5 for word in vocabulary])
    idf = np.log1p(max(1, len(titles)) / found).astype(np.float32)
    return keys[order], all_stats, idf[order]


def _packed(
    titles: Mapping[str, Sequence[str]],
) -> tuple[Keys, np.ndarray[tuple[int], np.dtype[np.int64]], Keys]:
    keys = keys_of(titles)
    order = np.argsort(keys)
    listed = list(titles.values())
    ordered = [listed[row] for row in order.tolist()]
    starts = np.concatenate([[0], np.cumsum([len(title) for title in ordered])]).astype(np.int64)
    return keys[order], starts, keys_of(word for title in ordered for word in title)
