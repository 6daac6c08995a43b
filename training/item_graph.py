"""Columns of the item table from the graph of queries, users and items: each item's neighbours.

Jha et al., "Unified Embedding Based Personalized Retrieval in Etsy Search" (arXiv 2306.04833) for the graph
of listings and queries. All is as of a moment, from what lies before it.

Legend: N = items, P = places.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shards.column_encoder import text_of
from shards.words import normalised
from training.co_clusters import co_clusters
from training.datasets.tables import row_numbers
from training.item_similarity import item_cf
from training.likes import likes
from training.lookup_tables import weighted_queries
from training.sparse_rows import SparseRows

QUERIES = "neighbour_queries"
"""The texts that led to the item most, most first."""
TAKES = "takes"
"""The texts that led to the item, each with how often: {"text", "count"}, most first."""
ITEMS = "neighbour_items"
"""The ids of the items that most of the same users took, nearest first."""
PLACES = "neighbour_places"
"""The places whose users take the item most, of all that they take."""
CLUSTER = "cluster"
"""The number of the item's cluster, and of the users' who take mostly such."""

_SHRINK = 5.0
"""How many common users it takes for items to be near in full."""
_PLACE_EVENTS = 500.0
"""How many events it takes for what a place takes to count by half."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemGraph:
    """How many neighbours of each kind an item has at most; 0 leaves a column out."""

    queries: int = 0
    takes: int = 0
    """Texts that led to the item which the table remembers with their counts."""
    items: int = 0
    places: int = 0
    place: str = ""
    """The column of the users that says where they are."""
    clusters: int = 0
    """Into how many clusters users and items are divided."""
    half_life_days: float = 180.0
    """How fast what queries led to, and what users took, fades."""

    def __post_init__(self) -> None:
        counts = (self.queries, self.takes, self.items, self.places, self.clusters)
        if min(counts) < 0 or self.clusters == 1:
            raise ValueError("counts must not be negative, nor clusters 1")
        if bool(self.places) != bool(self.place):
            raise ValueError("places and place go together")
        if self.half_life_days <= 0:
            raise ValueError("half_life_days must be above 0")


def with_neighbours(
    graph: ItemGraph, items: pa.Table, events: pa.Table, queries: pa.Table, users: pa.Table, now_ms: int
) -> pa.Table:
    """Return the items [N] with the columns that the graph is asked for, from what lies before `now_ms`."""
    columns = {}
    texts = _texts(graph, queries, now_ms) if graph.queries or graph.takes else {}
    if graph.queries:
        columns[QUERIES] = [_first(texts.get(item_id, {}), graph.queries) for item_id in _ids(items)]
    if graph.takes:
        items = items.append_column(TAKES, _takes(graph, items, texts))
    liked_UN = None
    if graph.items or graph.clusters:
        liked_UN = likes(items, events, now_ms, half_life_days=graph.half_life_days)
    if graph.items and liked_UN is not None:
        columns[ITEMS] = _items(graph, items, liked_UN)
    if graph.places:
        columns[PLACES] = _places(graph, items, events, users)
    for name, lists in columns.items():
        items = items.append_column(name, pa.array(lists, pa.list_(pa.string())))
    if graph.clusters and liked_UN is not None:
        items = items.append_column(CLUSTER, _clusters(graph, liked_UN))
    return items


def _texts(graph: ItemGraph, queries: pa.Table, now_ms: int) -> dict[str, dict[str, float]]:
    """Return for each item the texts that led to it, and how often."""
    weights: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for text, item_id, weight in weighted_queries(queries, now_ms, graph.half_life_days):
        if known := normalised(text):
            weights[item_id][known] += weight
    return weights


def _takes(graph: ItemGraph, items: pa.Table, texts: Mapping[str, dict[str, float]]) -> pa.Array:
    lists = []
    for item_id in _ids(items):
        found = texts.get(item_id, {})
        lists.append([{"text": text, "count": found[text]} for text in _first(found, graph.takes)])
    return pa.array(lists, pa.list_(pa.struct([("text", pa.string()), ("count", pa.float64())])))


def _items(graph: ItemGraph, items: pa.Table, liked_UN: SparseRows) -> list[list[str]]:
    near = item_cf(items, liked_UN, shrink=_SHRINK, top=graph.items)
    found: dict[str, list[str]] = defaultdict(list)
    for key, item_id in zip(near.column("key").to_pylist(), near.column("item_id").to_pylist(), strict=True):
        found[key].append(item_id)
    return [found.get(item_id, []) for item_id in _ids(items)]


def _clusters(graph: ItemGraph, liked_UN: SparseRows) -> pa.Array:
    found = co_clusters(liked_UN, clusters=graph.clusters)
    return pa.array([str(number) if number >= 0 else None for number in found.tolist()], pa.string())


def _places(graph: ItemGraph, items: pa.Table, events: pa.Table, users: pa.Table) -> list[list[str]]:
    names = pc.unique(users.column(graph.place).drop_null()).sort()
    # Nowhere is behind the last user, where who is unknown is looked for.
    of_user = np.append(row_numbers(users.column(graph.place), names), -1)
    place_E = of_user[row_numbers(events.column("user_id"), users.column("user_id"))]
    item_E = row_numbers(events.column("item_id"), items.column("item_id"))
    known = (place_E >= 0) & (item_E >= 0)
    count_NP = np.zeros((len(items), len(names)))
    np.add.at(count_NP, (item_E[known], place_E[known]), 1.0)
    share_NP = count_NP / (count_NP.sum(axis=0) + _PLACE_EVENTS)
    texts = [text_of(name) for name in names.to_pylist()]
    return [
        _first({texts[p]: float(share_P[p]) for p in np.flatnonzero(share_P)}, graph.places)
        for share_P in share_NP
    ]


def _first(weights: dict[str, float], count: int) -> list[str]:
    """Return the heaviest, ties by text."""
    return [text for text, _ in sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))[:count]]


def _ids(items: pa.Table) -> Sequence[str]:
    ids: list[str] = items.column("item_id").to_pylist()
    return ids
