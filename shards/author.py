"""Engine "author": items of the authors that a user follows or has met, and of similar ones (channel C6).

The author of an item is a column of it: a brand, a manufacturer, a shop, a writer. An author weighs
`followed_weight` where the user's feature `followed` lists it, and the sum of the events with its items, each
fading with its age. Score of an item: Σ weight of an author · score of the item under that author. The table
holds under each author its own items and, for less, those of similar authors.

Files: index.parquet with columns key (the author), item_id, score; items.parquet.
"""

from dataclasses import dataclass

from shards.bundle import Bundle
from shards.candidates import Candidates
from shards.catalogue import best_allowed, open_items, read_params
from shards.column_encoder import text_of
from shards.event_weights import EventWeights, Weights
from shards.forward_index import ForwardIndex
from shards.lookup_table import TABLE_FILE, Table, read_table
from shards.search_context import Filter, SearchContext


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorParams:
    """The item column that names the author, the user feature that lists those followed, and what counts."""

    column: str
    followed: str = ""
    followed_weight: float = 1.0
    half_life_days: float | None = None
    actions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.column:
            raise ValueError("column names no column of the items")
        if not self.followed_weight >= 0:
            raise ValueError("followed_weight must be at least 0")
        self.events()

    def events(self) -> EventWeights:
        """Return what an event counts."""
        return EventWeights(half_life_days=self.half_life_days, actions=self.actions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Answers by who made what the user likes."""

    items: ForwardIndex
    params: AuthorParams
    author_N: tuple[str, ...]
    """The author of each item, empty for none."""
    table: Table

    def retrieve(
        self,
        context: SearchContext,
        k: int,
        allowed: Filter,
        attributes: tuple[str, ...],
        attribute_count: int,
        /,
    ) -> Candidates:
        """Return the best `k` allowed items of the user's authors, ties in the order of the items."""
        rows, scores = self.table.sums(self._weights(context), len(self.items))
        return best_allowed(self.items, rows, scores, k, allowed, attributes, attribute_count)

    def _weights(self, context: SearchContext) -> Weights:
        followed = context.user.features.get(self.params.followed, ())
        names = (followed,) if isinstance(followed, str) else followed
        weights = dict.fromkeys(names, self.params.followed_weight) if isinstance(names, tuple) else {}
        for item_id, weight in self.params.events().of(context.user.history, context.now_ms).items():
            row = self.items.rows.get(item_id)
            if row is not None and (author := self.author_N[row]):
                weights[author] = weights.get(author, 0.0) + weight
        return weights


def open_author(bundle: Bundle, _device: str) -> Author:
    """Open the engine; BundleError names the file at fault."""
    items = open_items(bundle)
    params = read_params(AuthorParams, bundle)
    values = items.columns([params.column])[params.column]
    return Author(
        items=items,
        params=params,
        author_N=tuple("" if value is None else text_of(value) for value in values),
        table=read_table(bundle.file(TABLE_FILE), items),
    )
