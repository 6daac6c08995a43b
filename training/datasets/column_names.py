"""Columns of a shop's own tables by our names: as told, or as they are commonly called.

What is told is `columns[table][ours] = theirs`. Names are compared without case and punctuation.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa

from shards.errors import FieldViolation
from training.datasets.schema import SCHEMA

Columns = Mapping[str, Mapping[str, str]]

_USER_IDS = (
    "user",
    "customer_id",
    "customer",
    "visitor_id",
    "visitor",
    "account_id",
    "client_id",
    "member_id",
)
_ITEM_IDS = (
    "item",
    "product_id",
    "product",
    "sku",
    "article_id",
    "stock_code",
    "asin",
    "movie_id",
    "track_id",
)
_TIMES = ("time", "event_time", "datetime", "date", "ts", "created_at", "occurred_at", "invoice_date")
_COMMON: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "items": {
        "item_id": (*_ITEM_IDS, "id"),
        "title": ("name", "product_name", "item_name", "product_title", "description"),
    },
    "users": {"user_id": (*_USER_IDS, "id")},
    "events": {
        "event_id": ("id",),
        "user_id": _USER_IDS,
        "item_id": _ITEM_IDS,
        "action": ("event_type", "event", "event_name", "interaction", "behavior", "type"),
        "timestamp": _TIMES,
        "quantity": ("qty",),
        "price": ("unit_price",),
        "session_id": ("session", "visit_id", "basket_id", "order_id", "invoice_id", "invoice"),
    },
    "queries": {
        "query_id": ("search_id", "id"),
        "timestamp": _TIMES,
        "user_id": _USER_IDS,
        "query": ("search_query", "query_text", "search_term", "keywords", "q", "text"),
        "item_id": ("clicked_item_id", "clicked_product_id", *_ITEM_IDS),
        "session_id": ("session", "visit_id"),
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A table under our names, which columns were renamed (ours to theirs), and what could not be."""

    table: pa.Table
    renamed: Mapping[str, str]
    problems: tuple[FieldViolation, ...] = ()


def with_our_names(name: str, table: pa.Table, told: Mapping[str, str]) -> Named:
    """Return the table with columns named as told; those that it lacks, by what they are commonly called.

    Columns of items and users that are not ours become lower-case words joined by "_".
    """
    problems = tuple(_problems(name, table, told))
    renamed = {ours: theirs for ours, theirs in told.items() if theirs in table.column_names}
    taken = set(renamed.values())
    for ours, common in _COMMON[name].items():
        if ours in renamed or ours in table.column_names:
            continue
        alike = [c for c in table.column_names if _plain(c) in {_plain(ours), *map(_plain, common)}]
        free = [c for c in alike if c not in taken]
        best = next((c for each in (ours, *common) for c in free if _plain(c) == _plain(each)), None)
        if best is not None:
            renamed[ours] = best
            taken.add(best)
    ours_of = {theirs: ours for ours, theirs in renamed.items()}
    # A column whose name another one has been given keeps out of its way.
    kept = [c for c in table.column_names if c in ours_of or c not in renamed]
    names = [ours_of.get(c) or (_snake(c) if SCHEMA[name].static else c) for c in kept]
    return Named(table=table.select(kept).rename_columns(names), renamed=renamed, problems=problems)


def _problems(name: str, table: pa.Table, told: Mapping[str, str]) -> Iterator[FieldViolation]:
    declared = {column.name for column in SCHEMA[name].columns}
    for ours, theirs in told.items():
        if not SCHEMA[name].static and ours not in declared:
            yield FieldViolation(
                f"{name}.{ours}", f"is no column of {name}; {', '.join(sorted(declared))} are"
            )
        if theirs not in table.column_names:
            there = ", ".join(table.column_names)
            yield FieldViolation(f"{name}.{ours}", f"shall be {theirs!r}, which is not there; {there} are")
    for theirs in sorted({t for t in told.values() if list(told.values()).count(t) > 1}):
        yield FieldViolation(name, f"{theirs!r} is told to be several columns")


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).lower()


def _snake(name: str) -> str:
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_") or name
