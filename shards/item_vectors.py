"""Engine "item_vectors": items near to those that the user met, each of which asks with its own vector.

Which items ask: the medoids of the user's interests (PinnerSage, `shards.interests`), or the newest items one
by one (Avito's user-to-item). Each finds an equal share of the answer (`shards.lookups`). Nothing is kept for
a user: whoever brings a history is answered, and what they just did counts.

Files: index.faiss (inner product, ids are rows of items.parquet; int8 vectors are of the kind
SQ8_direct_signed), items.parquet. No program runs. Legend: H = items that ask, D = width of a vector.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from shards.ann_index import AnnIndex, AnnKnobs
from shards.bundle import Bundle
from shards.candidates import SCORE, Candidates
from shards.catalogue import Rows, answer, open_items, read_params
from shards.errors import MismatchedBundle
from shards.forward_index import ForwardIndex
from shards.history_rows import history_rows
from shards.interests import InterestParams, interests_of, newest_distinct
from shards.lookups import look_up_each
from shards.search_context import Filter, SearchContext

INDEX_FILE = "index.faiss"


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemVectorsParams:
    """Which of the user's items ask, and how far the index looks."""

    ann: AnnKnobs = field(default_factory=AnnKnobs)
    actions: tuple[str, ...] = ()
    """The events that count; all if none are named."""
    newest: int = 20
    """How many of the newest items ask, where there are no interests."""
    interests: InterestParams | None = None

    def __post_init__(self) -> None:
        if self.newest < 1:
            raise ValueError("newest must be at least 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemVectors:
    """Answers from the vectors of the user's own items."""

    items: ForwardIndex
    ann: AnnIndex
    params: ItemVectorsParams
    asked: AnnIndex | None = None
    """What finds neighbours where that is not `ann`, which always tells the vectors that ask."""

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Return `k` allowed items near to what the user met; none for whoever met nothing."""
        allowed_N = self.items.allowed(allowed) if allowed else None
        asking_H = self.asking(context)
        if len(asking_H):
            scores, rows = look_up_each(self.asked or self.ann, self.ann.vectors_at(asking_H), k, allowed_N)
        else:
            scores, rows = np.zeros(0, np.float32), asking_H
        return answer(self.items, rows, {SCORE: scores}, attributes, attribute_count)

    def exactly(self) -> "ItemVectors | None":
        """Return the engine over an exact search; None where its own is exact."""
        if self.ann.exact:
            return None
        return replace(self, asked=self.ann.exactly())

    def asking(self, context: SearchContext) -> Rows:
        """Return the rows of the items that ask [H]."""
        history = history_rows(context, self.items.lookup).of(self.params.actions)
        if self.params.interests is None:
            return newest_distinct(history.rows, self.params.newest)
        interests = interests_of(history, self.ann.vectors_at, self.params.interests)
        return interests.drawn(self.params.interests.drawn, context.user.user_id, context.now_ms)


def open_item_vectors(bundle: Bundle, device: str) -> ItemVectors:
    """Open the engine; BundleError names the file at fault."""
    items = open_items(bundle)
    params = read_params(ItemVectorsParams, bundle)
    ann = AnnIndex.open(bundle.file(INDEX_FILE), device, params.ann)
    if len(ann) != len(items):
        raise MismatchedBundle(INDEX_FILE, f"holds {len(ann)} vectors for {len(items)} items")
    ann.make_readable()
    return ItemVectors(items=items, ann=ann, params=params)
