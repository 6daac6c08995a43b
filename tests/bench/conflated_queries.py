"""Queries that mean two things, made of real ones: two words of the log become one word that nobody knows.

Such pseudo-words are how word-sense disambiguation has long been measured on data without labels (Gale,
Church and Yarowsky, 1992): what each word of a pair led to is one sense of the pseudo-word. Real items, taken
after the proxy queries of the data; only the spelling is ours.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from training.datasets.tables import Dataset

_LETTERS = "bcdfghjklmnpqrstvwxz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Senses:
    """A pseudo-word and, for each of its two senses, the items that it led to before the test."""

    word: str
    items: tuple[frozenset[str], frozenset[str]]


def conflated(dataset: Dataset, pairs: int, *, seed: int = 0) -> tuple[Dataset, list[Senses]]:
    """Return the dataset with its `2 * pairs` most frequent one-word queries conflated by twos at random."""
    queries = dataset.queries.column("query").to_pylist()
    words = Counter(query for query in queries if query.isalpha())
    frequent = sorted(words, key=lambda word: (-words[word], word))[: 2 * pairs]
    random.Random(seed).shuffle(frequent)
    couples = list(zip(frequent[::2], frequent[1::2], strict=True))
    spelling = {word: _pseudo_word(*couple) for couple in couples for word in couple}
    led_to = _led_to(dataset.queries, spelling)
    column = pa.array([spelling.get(query, query) for query in queries], pa.string())
    at = dataset.queries.column_names.index("query")
    senses = [
        Senses(word=spelling[a], items=(led_to[a] - led_to[b], led_to[b] - led_to[a])) for a, b in couples
    ]
    return replace(dataset, queries=dataset.queries.set_column(at, "query", column)), senses


def _pseudo_word(first: str, second: str) -> str:
    """Return a word without meaning, whose letters tell nothing of either."""
    digest = hashlib.blake2b(f"{first} {second}".encode(), digest_size=7).digest()
    return "".join(_LETTERS[byte % len(_LETTERS)] for byte in digest)


def _led_to(queries: pa.Table, spelling: Mapping[str, str]) -> dict[str, frozenset[str]]:
    known = queries.filter(pc.not_equal(queries.column("split"), "test"))
    kept = known.filter(pc.is_in(known.column("query"), pa.array(list(spelling))))
    found: dict[str, set[str]] = {word: set() for word in spelling}
    for query, item_id in zip(
        kept.column("query").to_pylist(), kept.column("item_id").to_pylist(), strict=True
    ):
        found[query].add(item_id)
    return {word: frozenset(item_ids) for word, item_ids in found.items()}
