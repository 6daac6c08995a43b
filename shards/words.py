"""Words and hashed character n-grams: what helps where a query is misspelt, inflected or joined.

Legend: N = texts, L = n-grams a text.
"""

import re
import unicodedata
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

MAX_TEXT_CHARS = 4096
"""What lies beyond is not read, in training as in serving: a text of megabytes costs no time."""
MAX_WORD_CHARS = 64

_WORD = re.compile(r"[^\W_]+")


def readable(text: str) -> str:
    """Return at most the first `MAX_TEXT_CHARS` characters, without lone surrogates."""
    return text[:MAX_TEXT_CHARS].encode("utf-8", "ignore").decode()


@lru_cache(maxsize=65_536)
def words(text: str) -> tuple[str, ...]:
    """Return the lower-cased, accent-free words of `text`, letters and digits only."""
    if text.isascii():  # Nothing to fold but case, which takes a tenth of the time.
        bare = text[:MAX_TEXT_CHARS].lower()
    else:
        folded = unicodedata.normalize("NFKD", readable(text)).casefold()
        bare = "".join(char for char in folded if not unicodedata.combining(char))
    return tuple(word[:MAX_WORD_CHARS] for word in _WORD.findall(bare))


def normalised(text: str) -> str:
    """Return the words of `text` joined by single spaces."""
    return " ".join(words(text))


def encode_ngrams(texts: Sequence[str], *, n: int, buckets: int, max_len: int) -> NDArray[np.int64]:
    """Return hashed n-gram ids [N, L] in 1..buckets of each text, in reading order, padded with 0."""
    ids_NL = np.zeros((len(texts), max_len), dtype=np.int64)
    for ids_L, text in zip(ids_NL, texts, strict=True):
        ids = [ngram for word in words(text) for ngram in _word_ngrams(word, n, buckets)][:max_len]
        ids_L[: len(ids)] = ids
    return ids_NL


@lru_cache(maxsize=65_536)
def _word_ngrams(word: str, n: int, buckets: int) -> tuple[int, ...]:
    """Return the ids of the n-grams of ^word$; a shorter word is one n-gram."""
    padded = f"^{word}$"
    grams = (padded[i : i + n] for i in range(max(1, len(padded) - n + 1)))
    return tuple(1 + zlib.crc32(gram.encode()) % buckets for gram in grams)
