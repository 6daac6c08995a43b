"""A text index in memory: BM25 over the words, stems and character 3-grams of texts, and exact ids.

Stems and words find what is typed right, edit distance 1 what is a letter off, and 3-grams of ^word$
what is joined, cut short or misspelt further. Queries are built from words, never parsed: user input
has no syntax. Legend: N = texts, K = hits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tantivy
from numpy.typing import NDArray

from shards.words import words

MAX_QUERY_WORDS = 32
"""What lies beyond is not read: a pasted page costs no more than a long query."""

_WRITER_HEAP_BYTES = 64_000_000
_FUZZY_MIN_CHARS = 3
_SHOULD = tantivy.Occur.Should


@dataclass(frozen=True, slots=True, kw_only=True)
class Boosts:
    """How much each kind of match counts; 0 leaves it out.

    The defaults were chosen on the valid split of online_retail's proxy queries.
    """

    stem: float = 0.5
    fuzzy: float = 1.0
    ngram: float = 0.25
    exact_id: float = 10.0


class LexicalIndex:
    """Immutable once made, so threads may share it."""

    def __init__(self, texts: Sequence[str], ids: Sequence[str], boosts: Boosts = Boosts()) -> None:
        self._boosts = boosts
        self._stemmer = (
            tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace())
            .filter(tantivy.Filter.stemmer("English"))
            .build()
        )
        self._schema = _schema()
        self._searcher = self._write(texts, ids)

    def search(self, query: str, limit: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return rows [K] and scores [K] of the best `limit` matches, best first, ties by row."""
        clauses = self._clauses(query)
        if not clauses:
            return np.empty(0, np.int64), np.empty(0, np.float64)
        hits = self._searcher.search(tantivy.Query.boolean_query(clauses), limit, count=False).hits
        scores, addresses = zip(*hits, strict=True) if hits else ((), ())
        rows = self._searcher.fast_field_values("row", list(addresses))
        return np.array(rows, np.int64), np.array(scores, np.float64)

    def _write(self, texts: Sequence[str], ids: Sequence[str]) -> tantivy.Searcher:
        index = tantivy.Index(self._schema)
        index.register_tokenizer("stem", self._stemmer)
        # One thread, so that documents keep the order of the rows.
        writer = index.writer(_WRITER_HEAP_BYTES, 1)
        for row, (text, item_id) in enumerate(zip(texts, ids, strict=True)):
            writer.add_document(_document(row, text, item_id))
        writer.commit()
        writer.wait_merging_threads()
        index.reload()
        return index.searcher()

    def _clauses(self, query: str) -> list[tuple[tantivy.Occur, tantivy.Query]]:
        found = tuple(dict.fromkeys(words(query)))[:MAX_QUERY_WORDS]
        ids = dict.fromkeys([_id_key(query), *map(_id_key, query.split()[:MAX_QUERY_WORDS])])
        parts = [self._boosted(self._term("id", key), self._boosts.exact_id) for key in ids if key]
        parts += [self._word(word) for word in found]
        grams = dict.fromkeys(_ngrams(found))
        parts += [self._boosted(self._term("ngrams", gram), self._boosts.ngram) for gram in grams]
        return [(_SHOULD, part) for part in parts if part is not None]

    def _word(self, word: str) -> tantivy.Query | None:
        """Return what matches one word: the better of its stem and of a word one edit away."""
        (stem,) = self._stemmer.analyze(word)
        ways = [self._boosted(self._term("stems", stem), self._boosts.stem)]
        if len(word) >= _FUZZY_MIN_CHARS:
            near = tantivy.Query.fuzzy_term_query(self._schema, "words", word, 1, True)
            ways.append(self._boosted(near, self._boosts.fuzzy))
        present = [way for way in ways if way is not None]
        return tantivy.Query.disjunction_max_query(present) if present else None

    def _term(self, field: str, value: str) -> tantivy.Query:
        return tantivy.Query.term_query(self._schema, field, value, "freq")

    def _boosted(self, query: tantivy.Query, boost: float) -> tantivy.Query | None:
        return tantivy.Query.boost_query(query, boost) if boost > 0 else None


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    builder.add_unsigned_field("row", fast=True)
    builder.add_text_field("words", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("stems", tokenizer_name="stem", index_option="freq")
    builder.add_text_field("ngrams", tokenizer_name="whitespace", index_option="freq")
    builder.add_text_field("id", tokenizer_name="raw", index_option="freq")
    return builder.build()


def _document(row: int, text: str, item_id: str) -> tantivy.Document:
    text_words = words(text)
    own_words = (*text_words, *words(item_id))
    document = tantivy.Document()
    document.add_unsigned("row", row)
    document.add_text("stems", " ".join(text_words))
    document.add_text("words", " ".join(own_words))
    document.add_text("ngrams", " ".join(_ngrams(own_words)))
    document.add_text("id", _id_key(item_id))
    return document


def _ngrams(text_words: Sequence[str]) -> list[str]:
    """Return the 3-grams of ^word$ of every word."""
    padded = (f"^{word}$" for word in text_words)
    return [word[i : i + 3] for word in padded for i in range(len(word) - 2)]


def _id_key(text: str) -> str:
    return text.strip().casefold()
