"""The last step of a cascade: the first items in an order that is good and not all of one kind.

Maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998) with quotas per value of an attribute. Pure,
and free of torch and faiss, because the router does it. Legend: W = items looked at, V = values or words.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from shards.candidates import Candidates, Floats
from shards.words import words

MOST_CANDIDATES = 500
"""The page is no longer."""

PLACE, SIMILARITY = "diversity.place", "diversity.similarity"
"""Columns of what was put in another order: the place before, from 1, and the similarity to the most alike
item above it."""

Texts = Mapping[str, Mapping[str, str]]
"""Of each item, its attributes by name."""
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttributeQuota:
    """At most so many items of one value of an attribute within the first places; none counts as no value."""

    attribute: str
    at_most: int
    within: int = 10
    each: bool = False
    """Whether each value of a list counts, not the list as one value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Diversity:
    """How the first `candidates` items are put in another order.

    Each place goes to the item with the highest `relevance` * r - (1 - `relevance`) * s: r falls in equal
    steps from 1 for the item that was first, whatever its score, and s is the similarity to the most alike
    item above. Two items are as alike as the words that they share among those they have (Jaccard), meant
    over `attributes`.
    """

    relevance: float = 1.0
    attributes: tuple[str, ...] = ()
    quotas: tuple[AttributeQuota, ...] = ()
    candidates: int = 50

    @property
    def changes_order(self) -> bool:
        """Return whether it may put anything in another order."""
        return self.relevance < 1 or bool(self.quotas)

    def reads(self) -> tuple[str, ...]:
        """Return the attributes that it goes by."""
        return tuple(dict.fromkeys((*self.attributes, *(quota.attribute for quota in self.quotas))))

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield each setting that makes no sense, as its path and what is wrong."""
        if not 0 <= self.relevance <= 1:
            yield "relevance", f"must be a share, 0 to 1, not {self.relevance:g}"
        if not 1 <= self.candidates <= MOST_CANDIDATES:
            yield "candidates", f"must be 1 to {MOST_CANDIDATES}, not {self.candidates}"
        if self.relevance < 1 and not self.attributes:
            yield "attributes", "must name what items are alike by where relevance is below 1"
        for i, name in enumerate(self.attributes):
            if not name:
                yield f"attributes[{i}]", "must not be empty"
        for i, quota in enumerate(self.quotas):
            if not quota.attribute:
                yield f"quotas[{i}].attribute", "must not be empty"
            if quota.at_most < 1:
                yield f"quotas[{i}].at_most", f"must be at least 1, not {quota.at_most}"
            if quota.within < quota.at_most:
                yield f"quotas[{i}].within", f"must be at least at_most, {quota.at_most}, not {quota.within}"


def diversified(candidates: Candidates, texts: Texts, diversity: Diversity, *, size: int) -> Candidates:
    """Return the candidates with the first `size` places given anew, and columns that tell of it.

    `texts` is about the items that are looked at. A quota gives way where no other item is left. What takes a
    place does not depend on `size`. Equal input gives equal output.
    """
    item_ids = candidates.item_ids[: diversity.candidates]
    order_W, similarity_W = _order([texts.get(item_id, {}) for item_id in item_ids], diversity, size)
    order = np.concatenate([order_W, np.arange(len(order_W), len(candidates), dtype=np.intp)])
    similarity = np.full(len(candidates), np.nan, np.float32)
    similarity[: len(similarity_W)] = similarity_W
    taken = candidates.take(order)
    return replace(
        taken, columns={**taken.columns, PLACE: (order + 1).astype(np.float32), SIMILARITY: similarity}
    )


def _order(
    items: Sequence[Mapping[str, str]], diversity: Diversity, size: int
) -> tuple[NDArray[np.intp], Floats]:
    """Return the items' positions [W], those that got a place first, and how alike each of these is."""
    alike = _Alike(items, diversity.attributes)
    quotas = [_Count(quota, items) for quota in diversity.quotas]
    relevance_W = diversity.relevance * (1 - np.arange(len(items)) / max(len(items), 1))
    nearest_W, open_W = np.zeros(len(items), np.float32), np.ones(len(items), np.bool_)
    order: list[int] = []
    similarity: list[float] = []
    for place in range(min(size, len(items))):
        allowed_W = open_W.copy()
        for quota in quotas:
            quota.narrow(allowed_W, place)
        free_W = allowed_W if allowed_W.any() else open_W
        value_W = relevance_W - (1 - diversity.relevance) * nearest_W
        chosen = int(np.argmax(np.where(free_W, value_W, -np.inf)))
        order.append(chosen)
        similarity.append(float(nearest_W[chosen]))
        open_W[chosen] = False
        np.maximum(nearest_W, alike.to(chosen), out=nearest_W)
        for quota in quotas:
            quota.add(chosen)
    order_W = np.concatenate([np.array(order, np.intp), np.flatnonzero(open_W)])
    return order_W, np.array(similarity, np.float32)


class _Alike:
    """How alike items are by the words of their attributes; nothing is like an item without words."""

    def __init__(self, items: Sequence[Mapping[str, str]], attributes: Sequence[str]) -> None:
        self._size = len(items)
        self._has_WV = [_incidence(items, name, words).astype(np.float32) for name in attributes]
        self._count_W = [has_WV.sum(axis=1) for has_WV in self._has_WV]

    def to(self, chosen: int) -> Floats:
        """Return how alike each item is to the one chosen [W], 0 to 1."""
        alike_W = np.zeros(self._size, np.float32)
        for has_WV, count_W in zip(self._has_WV, self._count_W, strict=True):
            shared_W = has_WV @ has_WV[chosen]
            alike_W += shared_W / np.maximum(count_W + count_W[chosen] - shared_W, 1)
        return alike_W / np.float32(max(len(self._has_WV), 1))


class _Count:
    """How often each value of an attribute stands above, beside its quota."""

    def __init__(self, quota: AttributeQuota, items: Sequence[Mapping[str, str]]) -> None:
        self._quota = quota
        self._has_WV = _incidence(items, quota.attribute, _values if quota.each else _whole)
        self._count_V = np.zeros(self._has_WV.shape[1], np.int64)
        self._full_W = np.zeros(len(items), np.bool_)

    def narrow(self, allowed_W: Mask, place: int) -> None:
        """Take from the items allowed those that must not have a place, counted from 0."""
        if place < self._quota.within:
            allowed_W &= ~self._full_W

    def add(self, chosen: int) -> None:
        """Count an item that got its place."""
        for value in np.flatnonzero(self._has_WV[chosen]):
            self._count_V[value] += 1
            if self._count_V[value] >= self._quota.at_most:
                self._full_W |= self._has_WV[:, value]


def _incidence(
    items: Sequence[Mapping[str, str]], attribute: str, parts: Callable[[str], Sequence[str]]
) -> Mask:
    """Return which item has which part of an attribute's text [W, V]."""
    of_items = [parts(item.get(attribute, "")) for item in items]
    at: dict[str, int] = {}
    for found in of_items:
        for part in found:
            at.setdefault(part, len(at))
    has_WV = np.zeros((len(items), len(at)), np.bool_)
    for has_V, found in zip(has_WV, of_items, strict=True):
        has_V[[at[part] for part in found]] = True
    return has_WV


def _values(text: str) -> list[str]:
    """Return the values of a list, as a forward index shows one."""
    return [value for value in text.split(", ") if value]


def _whole(text: str) -> list[str]:
    return [text] if text else []
