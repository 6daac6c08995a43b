"""One list from the lists of a catalogue's partitions, ordered as the undivided catalogue orders them.

A partition's answer has the column "catalogue_row" beside "score": where each item stands in the undivided
catalogue, which is what breaks ties there. Pure, and free of torch and faiss, because the router gathers.
Legend: C = candidates.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from shards.candidates import EMPTY, SCORE, Candidates, Floats
from shards.search_context import Filter, SearchContext
from shards.stages import Retriever

CATALOGUE_ROW = "catalogue_row"
"""The column that orders equal scores of several partitions."""

_SMALLEST_NORMAL = 0x00800000
"""Bits of the least float32 that no flush-to-zero mode touches."""


def row_keys(rows_C: NDArray[np.int64]) -> Floats:
    """Return the rows as float32 [C] that sort as the rows do, exact up to two billion.

    The bits of positive floats sort as integers do; their values would be exact up to 2**24 only.
    """
    return (rows_C + _SMALLEST_NORMAL).astype(np.int32).view(np.float32)


def gather(parts: Sequence[Candidates], *, k: int, attribute_count: int) -> Candidates:
    """Return the best `k` of the partitions' candidates, with attributes of the first `attribute_count`.

    Where each part holds the best `k` of its own items, that is what the undivided catalogue answers: by
    score, equal ones by "catalogue_row". Parts that lack this column order ties among each other.
    """
    if not parts:
        return EMPTY
    score_C = np.concatenate([_column(part, SCORE) for part in parts])
    row_C = np.concatenate([_column(part, CATALOGUE_ROW) for part in parts])
    best = _best_first(np.nan_to_num(score_C, nan=-np.inf), row_C, k)
    item_ids = list(chain.from_iterable(part.item_ids for part in parts))
    names = [name for name in parts[0].columns if name != CATALOGUE_ROW]
    return Candidates(
        item_ids=tuple(item_ids[i] for i in best.tolist()),
        columns={name: np.concatenate([_column(part, name) for part in parts])[best] for name in names},
        attributes=_attributes(parts, best[:attribute_count]),
    )


@dataclass(frozen=True, slots=True)
class Gathered:
    """The partitions of one model as one retriever, in one process."""

    parts: tuple[Retriever, ...]

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Return the best `k` allowed items of all partitions."""
        answers = [part.retrieve(context, k, allowed, attributes, attribute_count) for part in self.parts]
        return gather(answers, k=k, attribute_count=attribute_count)


def _column(part: Candidates, name: str) -> Floats:
    column = part.columns.get(name)
    return np.full(len(part), np.nan, np.float32) if column is None else column


def _best_first(score_C: Floats, row_C: Floats, k: int) -> NDArray[np.intp]:
    contenders = np.arange(len(score_C))
    if k < len(score_C):
        # Sorting only what is as good as the last one kept: an eighth of the list with eight partitions.
        contenders = np.flatnonzero(-score_C <= np.partition(-score_C, k - 1)[k - 1])
    order = np.lexsort((row_C[contenders], -score_C[contenders]))
    return contenders[order[:k]]


def _attributes(parts: Sequence[Candidates], best: NDArray[np.intp]) -> dict[str, tuple[str, ...]]:
    """Return the texts of the items at these places of the joined list, by attribute.

    Each part describes its own first items; whoever is among the first of all is among those.
    """
    ends = np.cumsum([len(part) for part in parts])
    owners = np.searchsorted(ends, best, side="right").tolist()
    places = [i - int(ends[p]) + len(parts[p]) for i, p in zip(best.tolist(), owners, strict=True)]
    named = {name for part in parts for name in part.attributes}
    return {
        name: tuple(parts[p].attributes[name][at] for p, at in zip(owners, places, strict=True))
        for name in sorted(named)
    }
