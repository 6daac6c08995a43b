"""What queries led to before, as one item table remembers it: the feature `QueryTakes`.

Legend: N = items, C = candidates, W = words of the query.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shards.column_encoder import Floats, text_of
from shards.words import normalised, words

_PRIOR = 0.05
"""Takes that a text counts for which never led to the item."""
_TYPICAL_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class _Led:
    """The items [M] that a text or a word led to, their rows rising, and how often [M]."""

    rows: NDArray[np.int64]
    counts: NDArray[np.float64]

    def at(self, row_C: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return how often it led to each candidate [C]."""
        if not len(self.rows):
            return np.zeros(len(row_C))
        place_C = np.minimum(np.searchsorted(self.rows, row_C), len(self.rows) - 1)
        return np.where(self.rows[place_C] == row_C, self.counts[place_C], 0.0)


_NOTHING = _Led(np.empty(0, np.int64), np.empty(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Takes:
    """The takes of each item by the text before them and by each of its words."""

    by_text: Mapping[str, _Led]
    by_word: Mapping[str, _Led]
    total_N: NDArray[np.float64]

    def measures(self, query: str, row_C: NDArray[np.int64]) -> dict[str, Floats]:
        """Return every measure [C] of `QueryTakes`."""
        led = self.by_text.get(normalised(query), _NOTHING)
        count_C = led.at(row_C)
        total_C = self.total_N.take(row_C)
        parts = [self.by_word.get(word, _NOTHING) for word in dict.fromkeys(words(query))]
        word_WC = np.array([part.at(row_C) for part in parts] or [np.zeros(len(row_C))])
        share_WC = _log_share(word_WC, total_C)
        found: dict[str, NDArray[np.float64]] = {
            "count": np.log1p(count_C),
            "query_share": count_C / (led.counts.sum() + 1.0),
            "item_share": _log_share(count_C, total_C),
            "words_share": share_WC.mean(axis=0),
            "rarest_word_share": share_WC.min(axis=0),
        }
        return {of: value_C.astype(np.float32) for of, value_C in found.items()}


def takes_of(column: Sequence[object]) -> Takes:
    """Return the takes in a column [N] of lists of {"text", "count"}; anything else counts nothing."""
    texts: dict[str, dict[int, float]] = defaultdict(dict)
    by_word: dict[str, dict[int, float]] = defaultdict(dict)
    total_N = np.zeros(len(column))
    for row, text, count in _entries(column):
        total_N[row] += count
        texts[text][row] = texts[text].get(row, 0.0) + count
        for word in set(words(text)):
            by_word[word][row] = by_word[word].get(row, 0.0) + count
    return Takes(by_text=_led(texts), by_word=_led(by_word), total_N=total_N)


def _entries(column: Sequence[object]) -> list[tuple[int, str, float]]:
    found = []
    for row, takes in enumerate(column):
        for take in takes if isinstance(takes, list | tuple) else ():
            text, count = (take.get("text"), take.get("count")) if isinstance(take, dict) else ("", None)
            if isinstance(count, int | float) and 0 < count < np.inf and (known := normalised(text_of(text))):
                found.append((row, known, float(count)))
    return found


def _led(counts: Mapping[str, Mapping[int, float]]) -> dict[str, _Led]:
    return {
        text: _Led(np.array(list(found), np.int64), np.array(list(found.values()), np.float64))
        for text, found in counts.items()
    }


def _log_share(count_XC: NDArray[np.float64], total_C: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return half the log of the smoothed share over the typical one."""
    log_XC: NDArray[np.float64] = np.log((count_XC + _PRIOR) / (total_C + 1.0) / _TYPICAL_SHARE) / 2
    return log_XC
