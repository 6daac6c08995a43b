"""How the words of a query and of items' texts agree: the features `WordMatch` and `WordPlaces`.

Words match where they are spelt alike, or one letter apart (one dropped, doubled, replaced, or swapped with
its neighbour: Garbe's symmetric deletes, so that a look-up costs no comparison of words). A word that nobody
knows and that is two known ones joined counts as those two.

Legend: N = items, C = candidates, L = words of an item, V = words of all items, W = words of a query.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from shards.column_encoder import Floats, Ids
from shards.words import words

_SHORTEST = 3
"""Words of fewer letters tell little of an item and are not read."""
_SHORTEST_MISSPELT = 4
_MOST = 32
"""Words of an item that are read: the first ones."""
_BITS, _NEAR = 32, np.uint64(2**32 - 1)
"""Words of a query that are looked for at once: a bit each for what is near, and one above for itself."""


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class ItemWords:
    """The distinct words of each item's text, and how common each of them is."""

    id_of: Mapping[str, int]
    """Words as numbers from 1."""
    near: Mapping[str, tuple[int, ...]]
    """What is left of a word without one letter, and of the word itself, to the words it may be."""
    ids_NL: NDArray[np.int32]
    """0 behind an item's last word."""
    place_NL: NDArray[np.float32]
    """How many of the item's words more items hold than this one."""
    count_N: NDArray[np.float32]
    holders_V: NDArray[np.float32]
    """Items that hold each word, from word 1 on; nothing at 0."""
    weight_V: NDArray[np.float32]
    """How rare each word is: the log of all items over those that hold it, one more of each."""
    weight_N: NDArray[np.float32]
    """What the words of each item weigh together, never nothing."""

    def measures(self, query: str, row_C: Ids) -> dict[str, Floats]:
        """Return every measure [C] of `WordMatch`."""
        asked = self._asked(query)
        ids_CL = self.ids_NL.take(row_C, axis=0)
        near_C, exact_C = np.zeros((2, len(row_C)), np.float32)
        named_CL = np.zeros(ids_CL.shape, np.bool_)
        each = list(asked.items())
        for first in range(0, len(each), _BITS):
            bits_CL = self._bits(each[first : first + _BITS]).take(ids_CL)
            bits_C = np.bitwise_or.reduce(bits_CL, axis=1)
            near_C += np.bitwise_count(bits_C & _NEAR)
            exact_C += np.bitwise_count(bits_C >> _BITS)
            named_CL |= bits_CL > 0
        place_CL, count_C = self.place_NL.take(row_C, axis=0), self.count_N.take(row_C)
        held = [max((self.holders_V[number] for number in near), default=0.0) for near in asked.values()]
        return {
            "query_share": near_C / np.float32(max(len(asked), 1)),
            "exact_share": exact_C / np.float32(max(len(asked), 1)),
            "item_share": named_CL.sum(axis=1) / np.maximum(count_C, 1.0),
            "item_words": np.log(np.maximum(count_C, 1.0)),
            "commonest_place": np.where(named_CL, place_CL, count_C[:, np.newaxis]).min(axis=1),
            "rarest_place": np.where(named_CL.any(axis=1), (named_CL * place_CL).max(axis=1), count_C),
            "query_words": np.full(len(row_C), np.log1p(len(asked)), np.float32),
            "holders": np.full(len(row_C), np.log1p(min(held, default=0.0)), np.float32),
        }

    def _bits(self, some: Sequence[tuple[str, frozenset[int]]]) -> NDArray[np.uint64]:
        """Return the bits of all words [V] of items: which of at most `_BITS` words each is near, or is."""
        bits_V = np.zeros(len(self.holders_V), np.uint64)
        for place, (word, near) in enumerate(some):
            bits_V[list(near)] |= np.uint64(1 << place)
            bits_V[self.id_of.get(word, 0)] |= np.uint64(1 << (place + _BITS))
        bits_V[0] = 0
        return bits_V

    def places(self, query: str, row_C: Ids) -> tuple[Ids, Ids]:
        """Return where each item names the first and the second word of a query [C]; -1 where it does not.

        A place counts the item's distinct words before it. A word that is spelt alike comes before others.
        """
        ids_CL = self.ids_NL.take(row_C, axis=0)
        nothing: tuple[str, frozenset[int]] = ("", frozenset())
        first, second = [*self._asked(query).items(), nothing, nothing][:2]
        return self._place(*first, ids_CL), self._place(*second, ids_CL)

    def _place(self, word: str, near: frozenset[int], ids_CL: NDArray[np.int32]) -> Ids:
        near_V = np.zeros(len(self.holders_V), np.int8)
        near_V[list(near)] = 1
        near_V[self.id_of.get(word, 0)] += 1
        near_V[0] = 0
        near_CL = near_V.take(ids_CL)
        place_C: Ids = np.where(near_CL.any(axis=1), near_CL.argmax(axis=1), -1)
        return place_C

    def named_by(self, row_H: Ids, row_C: Ids) -> Floats:
        """Return `HistoryWords` [C] of a history of these rows."""
        items_H = np.unique(row_H)
        if not len(items_H):
            return np.zeros(len(row_C), np.float32)
        held_V = np.bincount(self.ids_NL[items_H].ravel(), minlength=len(self.weight_V))
        ids_CL = self.ids_NL.take(row_C, axis=0)
        told_CL = (held_V / len(items_H) * self.weight_V).take(ids_CL)
        told_C: Floats = told_CL.sum(axis=1) / self.weight_N.take(row_C)
        return told_C

    def _asked(self, query: str) -> dict[str, frozenset[int]]:
        """Return the words of a query that are read, joined ones apart, and the known ones each may be."""
        found = [part for word in words(query) if len(word) >= _SHORTEST for part in self._parted(word)]
        return {word: self._near(word) for word in dict.fromkeys(found)}

    def _parted(self, word: str) -> tuple[str, ...]:
        """Return the two known words that a word is made of, the rarer as common as may be, or the word."""
        if self._near(word):
            return (word,)
        cuts = [(word[:at], word[at:]) for at in range(_SHORTEST, len(word) - _SHORTEST + 1)]
        known = [cut for cut in cuts if cut[0] in self.id_of and cut[1] in self.id_of]
        return max(known, key=lambda cut: min(self.holders_V[self.id_of[w]] for w in cut), default=(word,))

    def _near(self, word: str) -> frozenset[int]:
        """Return the words that one may be, itself among them if it is known."""
        itself = frozenset([self.id_of[word]]) if word in self.id_of else frozenset()
        if len(word) < _SHORTEST_MISSPELT:
            return itself
        return itself.union(*(self.near.get(left, ()) for left in _without_a_letter(word)))


_OPEN: WeakValueDictionary[tuple[str, ...], ItemWords] = WeakValueDictionary()


def item_words(texts: Sequence[str]) -> ItemWords:
    """Return the words of the items [N] with these texts; the same ones while anybody holds them."""
    key = tuple(texts)
    found = _OPEN.get(key)
    if found is None:
        found = _OPEN[key] = _item_words(key)
    return found


def _item_words(texts: Sequence[str]) -> ItemWords:
    held = [[word for word in dict.fromkeys(words(text)) if len(word) >= _SHORTEST][:_MOST] for text in texts]
    id_of: dict[str, int] = {}
    for item in held:
        for word in item:
            id_of.setdefault(word, len(id_of) + 1)
    ids_NL = np.zeros((len(held), max((len(item) for item in held), default=1) or 1), np.int32)
    for ids_L, item in zip(ids_NL, held, strict=True):
        ids_L[: len(item)] = [id_of[word] for word in item]
    holders_V = np.bincount(ids_NL.ravel(), minlength=len(id_of) + 1).astype(np.float32)
    holders_V[0] = 0.0
    weight_V = np.log((1.0 + len(held)) / (1.0 + holders_V))
    weight_V[0] = 0.0
    holders_NL = holders_V[ids_NL]
    place_NL = np.zeros(ids_NL.shape, np.float32)
    for other_N in holders_NL.T:
        place_NL += other_N[:, np.newaxis] > holders_NL
    return ItemWords(
        id_of=id_of,
        near=_near(id_of),
        ids_NL=ids_NL,
        place_NL=place_NL,
        count_N=(ids_NL > 0).sum(axis=1).astype(np.float32),
        holders_V=holders_V,
        weight_V=weight_V,
        weight_N=np.maximum(weight_V.take(ids_NL).sum(axis=1), 1e-9),
    )


def _near(id_of: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Return what is left of each word, but for numbers, of which a catalogue may have as many as items."""
    near: dict[str, tuple[int, ...]] = {}
    for word, number in id_of.items():
        if len(word) >= _SHORTEST_MISSPELT and not word.isdigit():
            for left in _without_a_letter(word):
                near[left] = (*near.get(left, ()), number)
    return near


def _without_a_letter(word: str) -> set[str]:
    """Return the word and what is left of it without one of its letters."""
    return {word, *(word[:at] + word[at + 1 :] for at in range(len(word)))}
