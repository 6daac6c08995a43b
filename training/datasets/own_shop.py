"""A shop's own tables, as they are, to the four tables that everything here reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from shards.errors import FieldViolation, InvalidInput
from training.datasets import parquet, schema
from training.datasets.column_names import Columns, with_our_names
from training.datasets.column_types import with_our_types
from training.datasets.completion import (
    NO_QUERIES,
    Proxies,
    proxy_queries,
    taken_actions,
    users_of,
    with_action,
    with_ids,
    with_split,
    with_what_followed,
)
from training.datasets.splits import split_of
from training.datasets.statistics import DAY_MS
from training.datasets.tables import Dataset, sort_tables, timestamps_ms
from training.shop_columns import ShopColumns, columns_of

_MOST_RANKING_DAYS, _RANKING_SHARE = 60.0, 0.3

_FEWEST_QUERIES = 50
"""Fewer cannot be held out and learned from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnShop:
    """Where a shop's tables are and what is made where they lack it."""

    name: str
    paths: Mapping[str, Path]
    """Items and events, and users and queries where there are any."""
    columns: Columns = field(default_factory=dict)
    taken: tuple[str, ...] = ()
    proxies: int = 100_000
    valid_share: float = 0.1
    test_share: float = 0.1
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadShop:
    """The checked tables, their columns' names in the files, what they are read as, and what was done."""

    dataset: Dataset
    renamed: Columns
    columns: ShopColumns
    taken: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def ranking_days(self) -> float:
        """Return how long before the test rankers may learn, so that channels have seen enough before."""
        first_ms = int(timestamps_ms(self.dataset.queries).min())
        before_test_days = (split_of(self.dataset.queries).test_from_ms - first_ms) / DAY_MS
        return min(_MOST_RANKING_DAYS, round(before_test_days * _RANKING_SHARE, 4))


def read_shop(shop: OwnShop) -> ReadShop:
    """Return the shop's tables, checked, with what they lack.

    Raises `InvalidInput` that lists every problem by table, column and row.
    """
    tables, renamed, notes = _read(shop)
    tables, made = _completed(tables)
    # What is made of the log comes after the check of all else, for which other values stand in.
    dataset = _checked(shop, {**tables, "queries": _with_stand_ins(tables["queries"], tables["items"])})
    _check_enough(dataset, shop.taken)
    columns, taken = columns_of(dataset), shop.taken or taken_actions(dataset.events)
    queries, told = _queries(shop, dataset, tables["queries"], columns, taken)
    whole = _checked(shop, {**dataset.tables(), "queries": queries})
    return ReadShop(
        dataset=sort_tables(whole),
        renamed=renamed,
        columns=columns,
        taken=taken,
        notes=(*notes, *made, *told),
    )


def _checked(shop: OwnShop, tables: Mapping[str, pa.Table]) -> Dataset:
    dataset = Dataset(name=shop.name, queries_are_proxies="queries" not in shop.paths, **tables)
    schema.check(dataset)
    return dataset


def _with_stand_ins(queries: pa.Table, items: pa.Table) -> pa.Table:
    """Return the queries with a split and an item for each where they name none."""
    some_item = items.column("item_id")[0] if "item_id" in items.column_names and len(items) else ""
    for name, value in (("split", "train"), ("item_id", some_item)):
        if name not in queries.column_names:
            queries = queries.append_column(name, pa.repeat(pa.scalar(value), len(queries)))
    return queries


def _queries(
    shop: OwnShop, dataset: Dataset, given: pa.Table, columns: ShopColumns, taken: tuple[str, ...]
) -> tuple[pa.Table, list[str]]:
    """Return the queries, each with its item and its split, and a note of what was made."""
    made, actions = [], ", ".join(taken)
    queries = given
    if dataset.queries_are_proxies:
        topics = (*columns.categories, *columns.tags)
        proxies = Proxies(taken=taken, most=shop.proxies, topics=topics, seed=shop.seed)
        queries = proxy_queries(dataset.items, dataset.events, proxies)
        made.append(f"queries: {len(queries):,} proxies made from titles of what was taken ({actions})")
    elif "item_id" not in given.column_names:
        queries = with_what_followed(given, dataset.events, taken)
        lost = len(given) - len(queries)
        made.append(f"queries.item_id: what the user took next, within 30 minutes ({actions})")
        made.append(f"queries: {lost:,} are left out that led to nothing")
    if "split" not in queries.column_names:
        _check_queries(queries)
        queries = with_split(queries, valid=shop.valid_share, test=shop.test_share)
        made.append(f"queries.split: by time, the last {shop.test_share:.0%} are the test")
    return queries, made


def _read(shop: OwnShop) -> tuple[dict[str, pa.Table], Columns, list[str]]:
    """Return the tables under our names and in our types, as far as they are there."""
    problems: list[FieldViolation] = []
    tables: dict[str, pa.Table] = {}
    renamed: dict[str, Mapping[str, str]] = {}
    notes: list[str] = []
    for name, path in shop.paths.items():
        try:
            raw = parquet.read_table(name, path)
        except InvalidInput as error:
            problems += error.violations
            continue
        named = with_our_names(name, raw, shop.columns.get(name, {}))
        problems += named.problems
        typed = with_our_types(name, named.table)
        tables[name], renamed[name] = typed.table, named.renamed
        notes += typed.notes
    unread = sorted(shop.columns.keys() - shop.paths.keys())
    problems += [FieldViolation(name, "has columns told and no file") for name in unread]
    if problems:
        raise InvalidInput(*problems)
    return tables, renamed, [*notes, *_apart(tables)]


def _apart(tables: dict[str, pa.Table]) -> list[str]:
    """Drop what items and events both say, of which only one can be meant; return a note of each."""
    notes = []
    for name, loser, why in (
        ("price", "events", "items have a price"),
        ("price_gbp", "events", "items have a price_gbp"),
        ("rating", "items", "it is made of the events, as of each moment"),
    ):
        if all(name in tables[table].column_names for table in ("items", "events")):
            tables[loser] = tables[loser].drop_columns([name])
            notes.append(f"{loser}.{name} is left out: {why}")
    return notes


def _completed(tables: dict[str, pa.Table]) -> tuple[dict[str, pa.Table], list[str]]:
    """Return all four tables, with ids, actions and users where there were none, and a note of each made."""
    made = []
    events, queries = tables["events"], tables.get("queries", NO_QUERIES.drop_columns(["split"]))
    if "event_id" not in events.column_names:
        made.append("events.event_id: made from the order of rows")
    if "action" not in events.column_names:
        made.append("events.action: 'take' for all")
    events = with_action(with_ids(events, "event_id", "e"))
    queries = with_ids(queries, "query_id", "q")
    users = tables.get("users")
    if users is None:
        users = users_of([events, queries])
        made.append(f"users: {len(users):,} from the events")
    return {"items": tables["items"], "users": users, "events": events, "queries": queries}, made


def _check_enough(dataset: Dataset, taken: tuple[str, ...]) -> None:
    empty = [name for name in ("items", "events") if not len(dataset.tables()[name])]
    if empty:
        raise InvalidInput(*(FieldViolation(name, "has no rows") for name in empty))
    actions = dataset.events.column("action").unique().to_pylist()
    if unknown := [action for action in taken if action not in actions]:
        problem = f"{unknown[0]!r} is no action of the events; {', '.join(sorted(actions))} are"
        raise InvalidInput(FieldViolation("taken", problem))


def _check_queries(queries: pa.Table) -> None:
    if len(queries) < _FEWEST_QUERIES:
        problem = f"are {len(queries)}; to hold some out and learn from others it takes {_FEWEST_QUERIES}"
        raise InvalidInput(FieldViolation("queries", problem))
