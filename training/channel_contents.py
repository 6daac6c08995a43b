"""What the bundle of a channel holds that needs no training by gradient: its engine, settings and tables.

One function for each source of `ChannelRecipe`; docs/channels.md describes them all.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shards.author import AuthorParams
from shards.geo import GeoParams
from shards.lexical import LexicalParams
from shards.lookup_table import TABLE_FILE, LookupParams
from shards.user_cf import MET_FILE, UserCFParams
from training import lookup_tables
from training.authors import author_items
from training.channel_recipe import ChannelRecipe
from training.datasets.splits import before
from training.item_similarity import item_cf, swing
from training.item_successors import successors
from training.likes import likes, pair_ages
from training.popularity import new_items, trending_items
from training.snapshot import Snapshot
from training.sparse_rows import SparseRows


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """An engine, its settings, and by file what it reads beside the items."""

    engine: str
    params: AuthorParams | GeoParams | LexicalParams | LookupParams | UserCFParams
    tables: Mapping[str, pa.Table] = field(default_factory=dict)


def contents_of(channel: ChannelRecipe, snapshot: Snapshot) -> Contents:
    """Return what the channel's bundle holds as of the snapshot's moment."""
    return UNTRAINED[channel.source](channel, snapshot)


def _table(params: LookupParams, table: pa.Table) -> Contents:
    return Contents(engine="table", params=params, tables={TABLE_FILE: table})


def _lexical(channel: ChannelRecipe, _snapshot: Snapshot) -> Contents:
    return Contents(engine="lexical", params=channel.lexical)


def _query_memory(channel: ChannelRecipe, snapshot: Snapshot) -> Contents:
    return _table(
        LookupParams(key="query"),
        lookup_tables.query_memory(
            snapshot.queries, snapshot.now_ms, half_life_days=channel.half_life_days, top=channel.top
        ),
    )


def _token_memory(channel: ChannelRecipe, snapshot: Snapshot) -> Contents:
    return _table(
        LookupParams(key="query_token"),
        lookup_tables.token_memory(
            snapshot.queries, snapshot.now_ms, half_life_days=channel.half_life_days, top=channel.top
        ),
    )


def _title_popularity(channel: ChannelRecipe, snapshot: Snapshot) -> Contents:
    return _table(
        LookupParams(key="query_token"),
        lookup_tables.title_popularity(
            snapshot.items, text=channel.text, popularity=channel.popularity, top=channel.top
        ),
    )


def _popular(channel: ChannelRecipe, snapshot: Snapshot) -> Contents:
    return _table(
        LookupParams(key="global"),
        lookup_tables.popular_items(snapshot.items, popularity=channel.popularity, top=channel.top),
    )


def _trending(channel: ChannelRecipe, snapshot: Snapshot) -> Contents:
    table = trending_items(
        snapshot.items,
        snapshot.events,
        snapshot.now_ms,
        half_life_days=channel.half_life_days,
        first_only=channel.discovery,
        top=channel.top,
    )
    return _table(LookupParams(key="global"), table)


def _new(channel: ChannelRecipe, snapshot: Snapshot) -> Contents:
    return _table(
        LookupParams(key="global"),
        new_items(snapshot.items, within_days=channel.within_days, top=channel.top),
    )


def _own(channel: ChannelRecipe, _snapshot: Snapshot) -> Contents:
    return Contents(
        engine="table", params=LookupParams(key="user_items", half_life_days=channel.half_life_days)
    )


def _cached(channel: ChannelRecipe, _snapshot: Snapshot) -> Contents:
    params = LookupParams(
        key="user_items",
        half_life_days=channel.half_life_days,
        actions=channel.actions,
        once=True,
        expires_days=channel.within_days,
        newest_only=True,
    )
    return Contents(engine="table", params=params)


def _interest(channel: ChannelRecipe) -> LookupParams:
    """Return how a user's own likes count for tables of similar items: Σ like · sim."""
    fades = channel.interest_half_life_days is not None
    return LookupParams(
        key="history",
        half_life_days=channel.interest_half_life_days,
        actions=channel.actions,
        once=fades,
    )


def _likes(channel: ChannelRecipe, snapshot: Snapshot, *, first: bool = False) -> SparseRows:
    return likes(
        snapshot.items,
        snapshot.events,
        snapshot.now_ms,
        half_life_days=channel.fresh_half_life_days if first else channel.like_half_life_days,
        window_days=channel.window_days,
        actions=channel.actions,
        first=first,
    )


def _item_cf(channel: ChannelRecipe, snapshot: Snapshot) -> Contents:
    target_UN = _likes(channel, snapshot, first=True) if channel.discovery else None
    table = item_cf(
        snapshot.items,
        _likes(channel, snapshot),
        target_UN=target_UN,
        shrink=channel.shrink,
        top=channel.top,
    )
    return _table(_interest(channel), table)


def _swing(channel: ChannelRecipe, snapshot: Snapshot) -> Contents:
    table = swing(
        snapshot.items,
        _likes(channel, snapshot),
        alpha=channel.alpha,
        user_weights=channel.user_weights,
        top=channel.top,
    )
    return _table(_interest(channel), table)


def _successors(channel: ChannelRecipe, snapshot: Snapshot) -> Contents:
    events = snapshot.events
    if channel.actions:
        events = events.filter(
            pc.is_in(events.column("action"), value_set=pa.array(channel.actions, pa.string()))
        )
    table = successors(
        snapshot.items,
        events,
        gap_decay=channel.gap_decay,
        most_steps=channel.most_steps,
        shrink=channel.shrink,
        top=channel.top,
    )
    return _table(_interest(channel), table)


def _user_cf(channel: ChannelRecipe, snapshot: Snapshot) -> Contents:
    params = UserCFParams(
        neighbours=channel.neighbours,
        half_life_days=channel.like_half_life_days,
        fresh_half_life_days=channel.fresh_half_life_days,
        discovery=channel.discovery,
    )
    ages = pair_ages(before(snapshot.events, snapshot.now_ms), snapshot.items, snapshot.now_ms)
    met = pa.table(
        {
            "user_id": ages.user_ids.take(pa.array(ages.user_E)),
            "item_id": snapshot.items.column("item_id").take(pa.array(ages.item_E)).combine_chunks(),
            "newest_days": pa.array(ages.newest_E.astype(np.float32)),
            "first_days": pa.array(ages.first_E.astype(np.float32)),
        }
    )
    return Contents(engine="user_cf", params=params, tables={MET_FILE: met})


def _author(channel: ChannelRecipe, snapshot: Snapshot) -> Contents:
    params = AuthorParams(
        column=channel.column,
        followed=channel.followed,
        half_life_days=channel.interest_half_life_days,
        actions=channel.actions,
    )
    table = author_items(
        snapshot.items,
        _likes(channel, snapshot),
        column=channel.column,
        similar_weight=channel.similar_weight,
        top=channel.top,
    )
    return Contents(engine="author", params=params, tables={TABLE_FILE: table})


def _geo(channel: ChannelRecipe, _snapshot: Snapshot) -> Contents:
    return Contents(engine="geo", params=channel.geo)


UNTRAINED: Mapping[str, Callable[[ChannelRecipe, Snapshot], Contents]] = {
    "lexical": _lexical,
    "query_memory": _query_memory,
    "token_memory": _token_memory,
    "title_popularity": _title_popularity,
    "popular": _popular,
    "trending": _trending,
    "new": _new,
    "own": _own,
    "cached": _cached,
    "item_cf": _item_cf,
    "swing": _swing,
    "successors": _successors,
    "user_cf": _user_cf,
    "author": _author,
    "geo": _geo,
}
