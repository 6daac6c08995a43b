"""How much of what an exact search finds an approximate one finds, too.

The exact search asks the vectors as the index stores them: what their compression loses was measured when
the index was tuned (`ann_recall` in the manifest), and is no matter of how far a search looks.
"""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

import numpy as np

from shards.candidates import SCORE, Candidates
from shards.golden import Golden
from shards.live_quality import Recall
from shards.pace import no_rest
from shards.search_context import Filter, SearchContext
from shards.stages import Retriever, Servable


@runtime_checkable
class Approximate(Retriever, Protocol):
    """A retriever that may miss items."""

    def exactly(self) -> Retriever | None:
        """Return the same retriever as it would answer by an exact search; None where it does already."""


def recall_of(
    servable: Approximate,
    context: SearchContext,
    k: int,
    allowed: Filter,
    *,
    found: Candidates | None = None,
) -> float | None:
    """Return the share of the exact answer's items that the retriever finds; None where that is empty.

    `found` is what it has answered, where that is known. An item that scores like the last of the exact
    answer is as good.
    """
    exact = servable.exactly()
    if exact is None:
        return 1.0
    wanted = exact.retrieve(context, k, allowed, (), 0)
    if not wanted.item_ids:
        return None
    found = servable.retrieve(context, k, allowed, (), 0) if found is None else found
    if not found.item_ids:
        return 0.0
    last = wanted.columns[SCORE][-1]
    ties = np.isclose(found.columns[SCORE], last, rtol=1e-5, atol=1e-7)
    known = set(wanted.item_ids)
    hits = sum(item in known or bool(tie) for item, tie in zip(found.item_ids, ties, strict=True))
    return min(hits / len(wanted), 1.0)


def golden_recall(servable: Servable, golden: Golden, *, rest: Callable[[], None] = no_rest) -> Recall | None:
    """Return the recall over the goldens, each for as many items as it holds; None for other engines."""
    if not isinstance(servable, Approximate):
        return None
    total, searches = 0.0, 0
    for context, item_ids in zip(golden.contexts, golden.item_ids, strict=True):
        recall = recall_of(servable, context, len(item_ids), ()) if item_ids else None
        if recall is not None:
            total, searches = total + recall, searches + 1
        rest()
    return Recall.of(total, searches) if searches else None
