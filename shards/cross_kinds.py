"""The kinds of cross feature: one number per candidate, from the request, the item and earlier stages."""

import math
from dataclasses import dataclass
from typing import ClassVar

from shards.feature_checks import check_name, check_positive, check_scale
from shards.feature_kinds import ITEM_ID_COLUMN, Side


@dataclass(frozen=True, slots=True, kw_only=True)
class ChannelColumn:
    """A column that an earlier stage gave, scaled like `Number`; `missing` where a candidate has no value."""

    name: str
    column: str
    missing: float = 0.0
    log1p: bool = False
    mean: float = 0.0
    std: float = 1.0
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        check_name(self.name)
        check_scale(self.mean, self.std)
        if not math.isfinite(self.missing):
            raise ValueError("missing must be finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReciprocalRank:
    """1 / rank of a rank column that a channel gave; 0 where a candidate has none."""

    name: str
    column: str
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        check_name(self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryCount:
    """log(1 + events) of the user's history on this item, of `actions` or of every action.

    `within_days` counts those of so long before the search alone, say 7, 1 or an hour (1 / 24).
    """

    name: str
    actions: tuple[str, ...] = ()
    within_days: float | None = None
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        check_name(self.name)
        _check_window(self.within_days)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryRecency:
    """0.5 ** (age / half life) of the user's newest event on this item; 0 where there is none."""

    name: str
    half_life_days: float
    actions: tuple[str, ...] = ()
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        check_name(self.name)
        if not (math.isfinite(self.half_life_days) and self.half_life_days > 0):
            raise ValueError("half_life_days must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryShare:
    """Visits of the user's history with this item over all visits and one; a visit is one moment's events."""

    name: str
    actions: tuple[str, ...] = ()
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        check_name(self.name)


HISTORY_MEASURES = ("events", "visits", "idle_days")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistorySize:
    """log(1 + a measure of the user's history), the same for every candidate; 0 without a history.

    "events", "visits" (distinct moments) or "idle_days" (since the newest event); `within_days` as for
    `HistoryCount`.
    """

    name: str
    of: str
    actions: tuple[str, ...] = ()
    within_days: float | None = None
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        check_name(self.name)
        _check_window(self.within_days)
        _check_measure(self.of, HISTORY_MEASURES)


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryGap:
    """How far a number of the item, scaled like `Number`, is above its mean over the user's history.

    0 without a history; an item without the number counts as one of the mean of all items.
    """

    name: str
    source: str
    log1p: bool = False
    mean: float = 0.0
    std: float = 1.0
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        _check_item_source(self.name, self.source)
        check_scale(self.mean, self.std)


TAKES_MEASURES = ("count", "query_share", "item_share", "words_share", "rarest_word_share")


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryTakes:
    """How often, and how surely, the query led to the item before, by the texts that led to it and how often.

    `source` is a column of lists of {"text", "count"}. "count": log(1 + takes of the item after the query).
    "query_share": these over all takes after the query, smoothed by one. "item_share": these over all takes
    of the item, an estimate of P(query | item); "words_share" and "rarest_word_share" the same of the query's
    words, their mean and their least; all three smoothed, and as half the log of the share over 5 %.
    """

    name: str
    source: str
    of: str
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        _check_item_source(self.name, self.source)
        _check_measure(self.of, TAKES_MEASURES)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryOverlap:
    """Share of the query's distinct tokens that an item's text holds; 0 for an empty query."""

    name: str
    source: str
    max_len: int = 32
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        _check_item_source(self.name, self.source)
        check_positive("max_len", self.max_len)


MATCH_MEASURES = (
    *("query_share", "exact_share", "item_share", "item_words"),
    *("commonest_place", "rarest_place", "query_words", "holders"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordMatch:
    """How the words of the query and of an item's text agree; words of one or two letters are not read.

    "query_share": the share of the query's words that the item names, spelt alike or a letter apart, and two
    words joined as two; "exact_share": spelt alike. "item_share": the share of the item's words that the
    query names; "item_words": the log of how many there are. "commonest_place" and "rarest_place": how many
    of the item's words more items hold than the commonest, or the rarest, that the query names; all of them
    where it names none. Alike for all items: "query_words", log(1 + words), and "holders", log(1 + items that
    hold the rarest of them).
    """

    name: str
    source: str
    of: str
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        _check_item_source(self.name, self.source)
        _check_measure(self.of, MATCH_MEASURES)


@dataclass(frozen=True, slots=True, kw_only=True)
class WordPlaces:
    """How much oftener than by chance searches name words at such places of texts as long.

    Looks at the places, among the item's distinct words, of the query's first two; 0 where the item does not
    name both, and for lengths of text that training hardly met. Training fits the logs.
    """

    name: str
    source: str
    lifts: tuple[tuple[float, ...], ...] = ()
    """At n, of texts of n words, the log for each pair of places [first * n + second]; empty: hardly met."""
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        _check_item_source(self.name, self.source)
        for n, lift in enumerate(self.lifts):
            if len(lift) not in (0, n * n) or not all(map(math.isfinite, lift)):
                raise ValueError(f"lifts[{n}] must be {n * n} finite numbers, or none")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryWords:
    """How much of an item's text the user's history names, rare words telling more; 0 without a history.

    For each of the item's words the share of the history's items that hold it, meant over the words by the
    log of how few items do.
    """

    name: str
    source: str
    actions: tuple[str, ...] = ()
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        _check_item_source(self.name, self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class NgramOverlap:
    """Share of the query's distinct character n-grams that an item's text holds; 0 for an empty query."""

    name: str
    source: str
    n: int = 3
    buckets: int = 32_768
    max_len: int = 96
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        _check_item_source(self.name, self.source)
        check_positive("n", self.n)
        check_positive("buckets", self.buckets)
        check_positive("max_len", self.max_len)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExactId:
    """1 where the query, apart from case and space around it, is the item's text: its id by default."""

    name: str
    source: str = f"item.{ITEM_ID_COLUMN}"
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        _check_item_source(self.name, self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemNumber:
    """A number of the item, scaled like `Number`, as a cross feature."""

    name: str
    source: str
    log1p: bool = False
    mean: float = 0.0
    std: float = 1.0
    side: ClassVar[Side] = "cross"

    def __post_init__(self) -> None:
        _check_item_source(self.name, self.source)
        check_scale(self.mean, self.std)


CrossKind = (
    ChannelColumn
    | ReciprocalRank
    | HistoryCount
    | HistoryRecency
    | HistoryShare
    | HistorySize
    | HistoryGap
    | HistoryWords
    | QueryTakes
    | WordMatch
    | WordPlaces
    | QueryOverlap
    | NgramOverlap
    | ExactId
    | ItemNumber
)


def _check_measure(of: str, known: tuple[str, ...]) -> None:
    if of not in known:
        raise ValueError(f"of {of!r} is none of {', '.join(known)}")


def _check_item_source(name: str, source: str) -> None:
    check_name(name)
    if not (source.startswith("item.") and len(source) > len("item.")):
        raise ValueError(f"source {source!r} of {name!r} must be item.<column>")


def _check_window(within_days: float | None) -> None:
    if within_days is not None and not (math.isfinite(within_days) and within_days > 0):
        raise ValueError("within_days must be above 0")
