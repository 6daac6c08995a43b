"""Engine "lexical": items whose text or id is like the query.

Files: items.parquet. The index is made in memory when the bundle opens: tantivy's folders hold random
names and lock files, which no checksum survives. Params: see `LexicalParams`.
Legend: N = items.
"""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from shards.bundle import Bundle
from shards.candidates import SCORE, Candidates
from shards.catalogue import Rows, answer, best_first, open_items, read_params
from shards.column_encoder import numbers, texts
from shards.errors import MismatchedBundle
from shards.forward_index import ITEMS_FILE, ForwardIndex, Mask
from shards.lexical_index import Boosts, LexicalIndex
from shards.search_context import Filter, SearchContext


@dataclass(frozen=True, slots=True, kw_only=True)
class LexicalParams:
    """What is searched, and how much each kind of match counts.

    `prior` names a column of items.parquet, 0 to 1, say last month's sales: scores are multiplied by
    1 + prior_weight * prior, so that of the many items a broad word matches the likely ones come first.
    The best `pool` items by text take part in that.
    """

    text_columns: tuple[str, ...] = ("title",)
    boosts: Boosts = field(default_factory=Boosts)
    prior: str = ""
    prior_weight: float = 1.0
    pool: int = 1000

    def __post_init__(self) -> None:
        if not self.text_columns:
            raise ValueError("text_columns names no column")
        if self.pool < 1 or self.prior_weight < 0:
            raise ValueError("pool must be at least 1 and prior_weight at least 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lexical:
    """Matches by text; a query without words finds nothing."""

    items: ForwardIndex
    index: LexicalIndex
    prior_factor: NDArray[np.float64]
    """What the prior multiplies each item's score by [N]."""
    pool: int
    """How many matches are looked at before any are left out."""

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Return the best `k` allowed matches, ties in the order of the items."""
        rows, scores = self._matches(context.query, k, self.items.allowed(allowed) if allowed else None)
        score = (scores * self.prior_factor[rows]).astype(np.float32)
        order = best_first(score, k)
        return answer(self.items, rows[order], {SCORE: score[order]}, attributes, attribute_count)

    def _matches(self, query: str, k: int, allowed_N: Mask | None) -> tuple[Rows, NDArray[np.float64]]:
        """Return the allowed ones of the best matches: `k` of them at least, unless there are fewer."""
        limit = max(k, self.pool)
        while True:
            rows, scores = self.index.search(query, limit)
            if allowed_N is None:
                return rows, scores
            kept = allowed_N[rows]
            if kept.sum() >= k or len(rows) < limit:
                return rows[kept], scores[kept]
            limit *= 2


def open_lexical(bundle: Bundle, _device: str) -> Lexical:
    """Open the engine; BundleError names the file at fault."""
    params = read_params(LexicalParams, bundle)
    items = open_items(bundle)
    columns = items.columns(params.text_columns).values()
    joined = [" ".join(parts) for parts in zip(*map(texts, columns), strict=True)]
    return Lexical(
        items=items,
        index=LexicalIndex(joined, items.item_ids, params.boosts),
        prior_factor=1.0 + params.prior_weight * _prior(items, params.prior),
        pool=params.pool if params.prior else 1,
    )


def _prior(items: ForwardIndex, column: str) -> NDArray[np.float64]:
    """Return each item's prior [N], 0 where it has none."""
    if not column:
        return np.zeros(len(items), np.float64)
    prior_N = np.nan_to_num(numbers(items.columns([column])[column]), nan=0.0)
    if ((prior_N < 0) | (prior_N > 1)).any():
        raise MismatchedBundle(ITEMS_FILE, f"column {column!r} is the prior and must lie in 0 to 1")
    return prior_N
