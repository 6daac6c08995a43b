"""What a stage knows about the search it works for: query, user, situation and moment."""

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

RawValue = str | float | tuple[str, ...]
"""A raw feature: a category or text, a number, or several categories."""


@dataclass(frozen=True, slots=True)
class History:
    """What a user did, oldest first; three aligned tuples."""

    item_ids: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    timestamps_ms: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.item_ids) == len(self.actions) == len(self.timestamps_ms):
            raise ValueError("item_ids, actions and timestamps_ms must have one length")

    def before(self, now_ms: int, *, limit: int) -> "History":
        """Return the newest `limit` events that happened strictly before `now_ms`."""
        end = bisect_left(self.timestamps_ms, now_ms)
        kept = slice(max(0, end - limit), end)
        return History(self.item_ids[kept], self.actions[kept], self.timestamps_ms[kept])


@dataclass(frozen=True, slots=True, kw_only=True)
class UserState:
    """A user as the user store knows them; an empty id is an unknown visitor."""

    user_id: str = ""
    features: Mapping[str, RawValue] = field(default_factory=dict)
    history: History = History()


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchContext:
    """Travels with every stage call; `now_ms` is the moment the search is answered for."""

    query: str = ""
    user: UserState = UserState()
    features: Mapping[str, RawValue] = field(default_factory=dict)
    now_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterClause:
    """One condition on an item attribute: any of some values, or a closed range."""

    attribute: str
    any_of: tuple[str, ...] = ()
    min: float | None = None
    max: float | None = None
    negate: bool = False


Filter = tuple[FilterClause, ...]
"""Clauses joined by "and"; empty allows every item."""
