"""Proxy queries: what somebody who took an item might have typed to find it.

Where there is no search log, as for MovieLens, queries are made here from what was then taken, so they are
easier and more regular than real ones; **every figure computed on them has to say so**. A query depends on
its key, the item and the seed alone, so it never changes with the rest of the data.
"""

import hashlib
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

_STOP_WORDS = frozenset(["the", "and", "with", "for", "from", "der", "die", "das", "les", "del"])
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")

_KINDS = {
    "title_word": 25,
    "two_title_words": 20,
    "misspelt_title_word": 15,
    "topic": 15,
    "topic_and_decade": 15,
    "browse": 10,
}
"""Kind of query to its share, in percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a query is made from; `release_year` may be unknown."""

    title: str
    release_year: int | None = None
    topics: Sequence[str] = ()
    """Genres, say, or categories."""


def proxy_query(taken: Taken, key: str, *, seed: int) -> str:
    """Return one query for the item, the same for equal arguments; "" is a search without a query."""
    digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
    rng = random.Random(int.from_bytes(digest, "big"))
    kind = rng.choices(list(_KINDS), weights=list(_KINDS.values()))[0]
    if kind == "browse":
        return ""
    if kind.startswith("topic") and taken.topics:
        topic = rng.choice(list(taken.topics)).lower()
        if kind == "topic_and_decade" and taken.release_year is not None:
            return f"{topic} {decade(taken.release_year)}"
        return topic
    words = _title_words(taken.title)
    if kind == "two_title_words" and len(words) > 1:
        return " ".join(rng.sample(words, 2))
    word = rng.choice(words)
    return _misspelt(word, rng) if kind == "misspelt_title_word" else word


def decade(release_year: int) -> str:
    """Return the decade as people write it: "1990s"."""
    return f"{release_year // 10 * 10}s"


def _title_words(title: str) -> list[str]:
    words = [word.lower() for word in _WORD.findall(title)]
    telling = [word for word in words if len(word) > 2 and word not in _STOP_WORDS]
    return telling or words or [title.lower()]


def _misspelt(word: str, rng: random.Random) -> str:
    """Return the word with two letters swapped, one dropped or one doubled; short words stay right."""
    if len(word) < 5:
        return word
    at = rng.randrange(1, len(word) - 1)
    typed = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at] + word[at:],
    )
    return rng.choice(typed)
