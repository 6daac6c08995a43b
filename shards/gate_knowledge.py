"""What a gate knows of queries, words and items without holding a single text: 64-bit hashes and numbers.

A router holds it for every search, so it must stay small: arrays that are looked up by binary search.
Legend: Q = queries of the training log, W = words, N = items, T = words of all titles end to end,
S = statistics.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Floats = NDArray[np.float32]

TAKES, TOP_SHARE, ENTROPY = range(3)
"""Columns of the statistics of a query or a word: decayed takes after it, the share of them that its foremost
item has, and the entropy of all shares in nats."""
STATISTICS = 3


@lru_cache(maxsize=262_144)
def key_of(text: str) -> int:
    """Return the 64-bit hash that stands for a text: BLAKE2b, the same in every process for ever."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def keys_of(texts: Iterable[str]) -> Keys:
    """Return the keys of texts, in their order."""
    return np.array([key_of(text) for text in texts], np.uint64)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateKnowledge:
    """Statistics by query and word, and the words of every item's title; all keys rise.

    `top_item_Q` is the key of the item that was taken most after a query. The words of item n are those of
    `title_words_T` from `starts_N1[n]` to `starts_N1[n + 1]`, each once.
    """

    query_Q: Keys
    query_stats_QS: Floats
    top_item_Q: Keys
    word_W: Keys
    word_stats_WS: Floats
    idf_W: Floats
    """log(1 + N / titles with the word); a word of queries alone has `unknown_idf`."""
    item_N: Keys
    starts_N1: NDArray[np.int64]
    title_words_T: Keys

    def __post_init__(self) -> None:
        for name in ("query_Q", "word_W", "item_N"):
            keys = getattr(self, name)
            if keys.ndim != 1 or keys.dtype != np.uint64 or (keys[1:] <= keys[:-1]).any():
                raise ValueError(f"{name} must be rising keys")
        shapes = {
            "query_stats_QS": (len(self.query_Q), STATISTICS),
            "top_item_Q": (len(self.query_Q),),
            "word_stats_WS": (len(self.word_W), STATISTICS),
            "idf_W": (len(self.word_W),),
            "starts_N1": (len(self.item_N) + 1,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, not {shape}")
        starts = self.starts_N1
        if starts[0] != 0 or starts[-1] != len(self.title_words_T) or (np.diff(starts) < 0).any():
            raise ValueError("starts_N1 does not divide title_words_T")
        if not (np.isfinite(self.query_stats_QS).all() and np.isfinite(self.word_stats_WS).all()):
            raise ValueError("statistics must be finite")
        if not np.isfinite(self.idf_W).all():
            raise ValueError("idf_W must be finite")

    @property
    def unknown_idf(self) -> float:
        """Return the weight of a word that no title has."""
        return float(np.log1p(2.0 * max(1, len(self.item_N))))

    def idf(self, words: Keys) -> tuple[Floats, NDArray[np.bool_]]:
        """Return the weight of each word, and whether any title has it."""
        rows, known = _rows(self.word_W, words)
        idf = np.where(known, self.idf_W[rows] if len(self.idf_W) else 0.0, self.unknown_idf)
        # Words of queries alone have statistics, but stand in no title.
        return idf.astype(np.float32), known & (idf < self.unknown_idf)

    def word_stats(self, words: Keys) -> Floats:
        """Return the statistics of each word [words, S], zeros for an unknown one."""
        return _looked_up(self.word_W, self.word_stats_WS, words)

    def query_stats(self, query: int) -> tuple[Floats, int | None]:
        """Return the statistics of a query [S] and the key of its foremost item; zeros, None if unknown."""
        rows, known = _rows(self.query_Q, np.array([query], np.uint64))
        if not known[0]:
            return np.zeros(STATISTICS, np.float32), None
        return self.query_stats_QS[rows[0]], int(self.top_item_Q[rows[0]])

    def titles(self, items: Keys) -> tuple[Keys, NDArray[np.int64]]:
        """Return the words of the items' titles end to end, and the place in `items` that each belongs to."""
        rows, known = _rows(self.item_N, items)
        places = np.flatnonzero(known)
        rows = rows[places]
        starts, counts = self.starts_N1[rows], self.starts_N1[rows + 1] - self.starts_N1[rows]
        ends = np.cumsum(counts)
        at = np.arange(int(counts.sum())) + np.repeat(starts - (ends - counts), counts)
        return self.title_words_T[at], np.repeat(places, counts)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all arrays by name, to be saved."""
        return {name: getattr(self, name) for name in self.__slots__}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]]) -> "GateKnowledge":
        """Return what was saved; ValueError or KeyError where it is not whole."""
        return cls(**{name: arrays[name] for name in cls.__slots__})


def _rows(keys: Keys, wanted: Keys) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return where each wanted key stands in the rising keys, 0 and False for one that does not."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.bool_)
    rows = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    known = keys[rows] == wanted
    return np.where(known, rows, 0), known


def _looked_up(keys: Keys, values: Floats, wanted: Keys) -> Floats:
    rows, known = _rows(keys, wanted)
    if not len(keys):
        return np.zeros((len(wanted), values.shape[1]), np.float32)
    return np.where(known[:, None], values[rows], np.float32(0.0))
