"""The features of a search by which a gate's model expects what embedding retrieval would add.

Training and routers use this one code. Legend: F = features, H = items of the history.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.candidates import SCORE, Candidates
from shards.gate_knowledge import ENTROPY, TAKES, TOP_SHARE, Floats, GateKnowledge, Keys, key_of, keys_of
from shards.search_context import SearchContext
from shards.words import normalised, words

BEFORE = (
    "words",
    "chars",
    "has_digit",
    "unknown_words",
    "idf_min",
    "idf_max",
    "idf_sum",
    "query_takes",
    "query_top_share",
    "query_entropy",
    "word_takes_min",
    "word_takes_max",
    "word_top_share_max",
    "word_entropy_min",
    "history_items",
    "history_idle_days",
    "history_cover",
    "history_matches",
    "title_cover",
    "top_item_taken",
)
"""What is known before any retrieval; see `_Search`."""

AFTER = (
    *BEFORE,
    "lexical_found",
    "lexical_top",
    "lexical_second",
    "lexical_fifth",
    "lexical_tenth",
    "lexical_twentieth",
    "lexical_entropy",
    "lexical_first_is_top_item",
    "lexical_taken_rank",
)
"""What the statistics of the lexical scores add: see `_lexical`."""

_MS_PER_DAY = 86_400_000.0
_LONG_AGO_DAYS = 1000.0
_LOOKED_AT = 50
"""Lexical candidates whose scores count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchFacts:
    """What a gate's knowledge says of one search: what its rules ask, and the features before retrieval."""

    features: Floats
    """[F] in the order of `BEFORE`."""
    query_takes: float
    top_share: float
    title_cover: float
    """The largest share of a title, by weight of words, that the query says, over the titles of items in the
    history that have all words of the query; 0 where none has."""
    top_item: int | None
    """Key of the item that was taken most after the query."""
    history: Keys


def facts_of(knowledge: GateKnowledge, context: SearchContext) -> SearchFacts:
    """Return what is known of a search before any retrieval."""
    found = tuple(dict.fromkeys(words(context.query)))
    query_words = keys_of(found)
    idf, in_titles = knowledge.idf(query_words)
    stats, top_item = knowledge.query_stats(key_of(normalised(context.query)))
    by_word = knowledge.word_stats(query_words)
    history = _history(context)
    cover, matches, title_cover = _matched(knowledge, query_words, idf, history)
    item_ids, times_ms = context.user.history.item_ids, context.user.history.timestamps_ms
    idle_days = (context.now_ms - times_ms[-1]) / _MS_PER_DAY if item_ids else _LONG_AGO_DAYS
    some = len(found) > 0
    features = (
        len(found),
        len(context.query),
        any(char.isdigit() for char in context.query),
        1.0 - in_titles.mean() if some else 0.0,
        idf.min() if some else 0.0,
        idf.max() if some else 0.0,
        idf.sum(),
        np.log1p(stats[TAKES]),
        stats[TOP_SHARE],
        stats[ENTROPY],
        np.log1p(by_word[:, TAKES].min()) if some else 0.0,
        np.log1p(by_word[:, TAKES].max()) if some else 0.0,
        by_word[:, TOP_SHARE].max() if some else 0.0,
        by_word[:, ENTROPY].min() if some else 0.0,
        np.log1p(len(history)),
        np.log1p(max(0.0, idle_days)),
        cover,
        np.log1p(matches),
        title_cover,
        top_item is not None and bool((history == np.uint64(top_item)).any()),
    )
    return SearchFacts(
        features=np.array(features, np.float32),
        query_takes=float(stats[TAKES]),
        top_share=float(stats[TOP_SHARE]),
        title_cover=title_cover,
        top_item=top_item,
        history=history,
    )


def after_features(facts: SearchFacts, lexical: Candidates) -> Floats:
    """Return the features [F] in the order of `AFTER`."""
    return np.concatenate([facts.features, _lexical(facts, lexical)])


def _history(context: SearchContext) -> Keys:
    """Return the keys of the distinct items that the user took [H]."""
    return keys_of(dict.fromkeys(context.user.history.item_ids))


def _matched(
    knowledge: GateKnowledge, query_words: Keys, idf: Floats, history: Keys
) -> tuple[float, int, float]:
    """Return how well titles in the history and the query match, by weight of words.

    The largest share of the query that a title says, how many titles say all of it, and the largest share
    of those titles that the query says.
    """
    if not len(query_words) or not len(history):
        return 0.0, 0, 0.0
    title_words, places = knowledge.titles(history)
    if not len(title_words):
        return 0.0, 0, 0.0
    title_idf, _ = knowledge.idf(title_words)
    said = np.isin(title_words, query_words)
    said_H = _sum_by(places, np.where(said, title_idf, np.float32(0.0)), len(history))
    title_H = _sum_by(places, title_idf, len(history))
    count_H = _sum_by(places, said.astype(np.float32), len(history))
    all_said = count_H == len(query_words)
    covers = said_H[all_said] / title_H[all_said]
    return (
        float(said_H.max() / max(float(idf.sum()), 1e-9)),
        int(all_said.sum()),
        float(covers.max(initial=0.0)),
    )


def _sum_by(places: NDArray[np.int64], values: Floats, size: int) -> NDArray[np.float64]:
    # Without any place numpy counts in whole numbers.
    return np.bincount(places, weights=values, minlength=size).astype(np.float64, copy=False)


def _lexical(facts: SearchFacts, lexical: Candidates) -> Floats:
    """Return the number found, the best score, others as shares of it, and the entropy of the best ones.

    Also whether the first is the item that the log knows for the query, and the reciprocal rank of the first
    that the user took before.
    """
    scores = lexical.columns.get(SCORE, np.empty(0, np.float32))[:_LOOKED_AT].astype(np.float64)
    if not len(scores) or not np.isfinite(scores).all() or scores[0] <= 0:
        return np.zeros(len(AFTER) - len(BEFORE), np.float32)
    share = np.maximum(scores, 0.0) / scores.sum()
    item_keys = keys_of(lexical.item_ids[:_LOOKED_AT])
    taken = np.flatnonzero(np.isin(item_keys, facts.history))
    return np.array(
        [
            np.log1p(len(lexical)),
            np.log1p(scores[0]),
            *(scores[place] / scores[0] if place < len(scores) else 0.0 for place in (1, 4, 9, 19)),
            -(share * np.log(np.maximum(share, 1e-12))).sum(),
            facts.top_item is not None and item_keys[0] == np.uint64(facts.top_item),
            1.0 / (1 + taken[0]) if len(taken) else 0.0,
        ],
        np.float32,
    )
