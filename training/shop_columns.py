"""What the columns of a shop's tables are read as: told by an operator, or by what they hold."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from training.datasets.schema import SCHEMA, TEXTS
from training.datasets.tables import Dataset

_MOST_CATEGORIES = 2_000
_CATEGORY_SHARE = 0.1
"""A column with more values than this share of its rows does not tell groups of rows."""
_WORDS_OF_TEXT = 2.0
"""Texts have at least so many words on average; shorter ones of many values are codes, links and the like."""
OF_EVENTS = ("price_gbp", "price", "rating")
"""What `training.item_statistics` knows of items from their events."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShopColumns:
    """What columns are read as; one may be read as several things."""

    texts: tuple[str, ...] = ("title",)
    """Columns of items whose words are searched and read by models; the first is the title."""
    categories: tuple[str, ...] = ()
    """Columns of items with one of few values."""
    tags: tuple[str, ...] = ()
    """Columns of items that list some of few values."""
    numbers: tuple[str, ...] = ()
    """Columns of items with a number; price and rating may come from the events."""
    user_categories: tuple[str, ...] = ()
    user_numbers: tuple[str, ...] = ()
    shown: tuple[str, ...] = ("title",)
    """Columns of items that come with every answer."""

    def __post_init__(self) -> None:
        if not self.texts:
            raise ValueError("texts must name a column, the title first")

    @property
    def words(self) -> tuple[str, ...]:
        """Return the columns of items whose words are searched."""
        return tuple(dict.fromkeys((*self.texts, *self.categories, *self.tags)))


def columns_of(dataset: Dataset) -> ShopColumns:
    """Return what the columns hold: few values, lists, numbers or words; a column of codes is left out."""
    items, users = _static("items", dataset.items), _static("users", dataset.users)
    kinds = {name: _kind(dataset.items.column(name)) for name in items}
    of_users = {name: _kind(dataset.users.column(name)) for name in users}
    categories, tags, numbers = (_named(kinds, kind) for kind in ("category", "tags", "number"))
    known = [name for name in OF_EVENTS if name in dataset.events.column_names and name not in numbers]
    return ShopColumns(
        texts=("title", *_named(kinds, "text")),
        categories=categories,
        tags=tags,
        numbers=(*numbers, *known),
        user_categories=_named(of_users, "category"),
        user_numbers=_named(of_users, "number"),
        shown=("title", *categories, *(name for name in (*numbers, *known) if name.startswith("price"))),
    )


def _static(name: str, table: pa.Table) -> list[str]:
    declared = {column.name for column in SCHEMA[name].columns}
    return [column for column in table.column_names if column not in declared]


def _named(kinds: dict[str, str], kind: str) -> tuple[str, ...]:
    return tuple(name for name, found in kinds.items() if found == kind)


def _kind(column: pa.ChunkedArray) -> str:
    if column.type == TEXTS:
        return "tags"
    if column.type != pa.string():
        return "number"
    known: Sequence[object] = column.drop_null()
    values = pc.count_distinct(known).as_py()
    if 1 < values <= _MOST_CATEGORIES and values <= max(10, _CATEGORY_SHARE * len(known)):
        return "category"
    spaces = pc.mean(pc.count_substring(pc.utf8_trim_whitespace(known), " ")).as_py() or 0.0
    return "text" if spaces + 1 >= _WORDS_OF_TEXT and values > 1 else ""
