"""The kinds of feature that a model may name: definitions only, fixed at training time.

A feature with source "item.<column>" belongs to the item side; sources "query", "user_id", "user.<feature>",
"context.<feature>" and "now.<part>" to the request side. Cross features (`shards.cross_kinds`) give one
number a candidate. `cardinality` is how many ids an embedding table needs, padding or unknown (0)
included.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from shards.feature_checks import (
    check_distinct,
    check_item_source,
    check_name,
    check_positive,
    check_rising,
    check_scale,
    check_source,
)

Side = Literal["request", "item", "cross"]

ITEM_ID_COLUMN = "item_id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """Token ids [max_len] of a text; 0 = padding, 1 = unknown."""

    name: str
    source: str
    max_len: int

    def __post_init__(self) -> None:
        check_source(self.name, self.source)
        check_positive("max_len", self.max_len)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ngrams:
    """Hashed character n-gram ids [max_len] of a text's words; 0 = padding."""

    name: str
    source: str
    n: int = 3
    buckets: int
    max_len: int

    def __post_init__(self) -> None:
        check_source(self.name, self.source)
        check_positive("n", self.n)
        check_positive("buckets", self.buckets)
        check_positive("max_len", self.max_len)

    @property
    def cardinality(self) -> int:
        """Return the number of ids."""
        return self.buckets + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Category:
    """One id of a vocabulary, counted from 1; 0 = missing or unknown."""

    name: str
    source: str
    vocabulary: tuple[str, ...]

    def __post_init__(self) -> None:
        check_source(self.name, self.source)
        check_distinct(self.vocabulary)

    @property
    def cardinality(self) -> int:
        """Return the number of ids."""
        return len(self.vocabulary) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Categories:
    """Ids [max_len] of the values that the vocabulary knows, in the order given; 0 = padding."""

    name: str
    source: str
    vocabulary: tuple[str, ...]
    max_len: int

    def __post_init__(self) -> None:
        check_source(self.name, self.source)
        check_distinct(self.vocabulary)
        check_positive("max_len", self.max_len)

    @property
    def cardinality(self) -> int:
        """Return the number of ids."""
        return len(self.vocabulary) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HashedId:
    """One id in 1..buckets by the hash of a value, say of a user's or an item's id; 0 = missing.

    There is no vocabulary: who came after training has a row of the table, too, and shares it with whoever
    has the same hash.
    """

    name: str
    source: str
    buckets: int

    def __post_init__(self) -> None:
        check_source(self.name, self.source)
        check_positive("buckets", self.buckets)

    @property
    def cardinality(self) -> int:
        """Return the number of ids."""
        return self.buckets + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """(x - mean) / std of a number, after sign(x) * log1p(|x|) where asked; 0 where it is missing."""

    name: str
    source: str
    log1p: bool = False
    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        check_source(self.name, self.source)
        check_scale(self.mean, self.std)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """Which of about equally full buckets a number lies in, counted from 1; 0 = missing.

    Bucket 1 + i holds numbers of boundaries[i - 1] <= x < boundaries[i]. Training fits boundaries that divide
    what it knows into `buckets`; equal ones count once.
    """

    name: str
    source: str
    buckets: int = 16
    boundaries: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        check_source(self.name, self.source)
        if self.buckets < 2:
            raise ValueError(f"buckets must be at least 2, not {self.buckets}")
        check_rising("boundaries", self.boundaries)

    @property
    def cardinality(self) -> int:
        """Return the number of ids."""
        return len(self.boundaries) + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryItems:
    """Row + 1 [max_len] of the newest items of the user's history, newest last; 0 = padding.

    Only events with one of `actions` count, or every event where it is empty; items that the
    bundle does not know are skipped.
    """

    name: str
    max_len: int
    actions: tuple[str, ...] = ()
    side: ClassVar[Side] = "request"

    def __post_init__(self) -> None:
        check_name(self.name)
        check_positive("max_len", self.max_len)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryAges:
    """Age bucket [max_len] of each event of the `HistoryItems` with equal max_len and actions; 0 = padding.

    Bucket 1 + i holds ages of boundaries_days[i - 1] <= age < boundaries_days[i].
    """

    name: str
    max_len: int
    boundaries_days: tuple[float, ...]
    actions: tuple[str, ...] = ()
    side: ClassVar[Side] = "request"

    def __post_init__(self) -> None:
        check_name(self.name)
        check_positive("max_len", self.max_len)
        check_rising("boundaries_days", self.boundaries_days)

    @property
    def cardinality(self) -> int:
        """Return the number of ids."""
        return len(self.boundaries_days) + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryCategory:
    """The value that most of the newest `max_len` items of the history have in a column, as an id.

    Ids count the vocabulary from 1; 0 = none of it is known. Of values met as often, it is the first of the
    vocabulary. Events count as for `HistoryItems`.
    """

    name: str
    source: str
    vocabulary: tuple[str, ...]
    max_len: int
    actions: tuple[str, ...] = ()
    side: ClassVar[Side] = "request"

    def __post_init__(self) -> None:
        check_item_source(self.name, self.source)
        check_distinct(self.vocabulary)
        check_positive("max_len", self.max_len)

    @property
    def cardinality(self) -> int:
        """Return the number of ids."""
        return len(self.vocabulary) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryCategories:
    """The id [max_len] of each event's item's value in a column, newest last; 0 = padding or unknown.

    Ids count the vocabulary from 1. Events are those of the `HistoryItems` with equal max_len and actions.
    """

    name: str
    source: str
    vocabulary: tuple[str, ...]
    max_len: int
    actions: tuple[str, ...] = ()
    side: ClassVar[Side] = "request"

    def __post_init__(self) -> None:
        check_item_source(self.name, self.source)
        check_distinct(self.vocabulary)
        check_positive("max_len", self.max_len)

    @property
    def cardinality(self) -> int:
        """Return the number of ids."""
        return len(self.vocabulary) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemId:
    """Row + 1 of the item in the bundle's item table; 0 = unknown."""

    name: str
    side: ClassVar[Side] = "item"

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemRows:
    """Row + 1 [max_len] of the items whose ids a column lists, in its order; 0 = padding.

    Ids that the bundle does not know are skipped.
    """

    name: str
    source: str
    max_len: int
    side: ClassVar[Side] = "item"

    def __post_init__(self) -> None:
        check_item_source(self.name, self.source)
        check_positive("max_len", self.max_len)


ValueKind = Tokens | Ngrams | Category | Categories | HashedId | Number | Quantile
HistoryKind = HistoryItems | HistoryAges | HistoryCategory | HistoryCategories
ItemKind = ItemId | ItemRows
