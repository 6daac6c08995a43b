"""A dataset as it was known at one moment: what channels are made from, and nothing that came later."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from shards.manifest import TrainingRange
from shards.search_context import SearchContext
from training.datasets.contexts import search_contexts
from training.datasets.splits import before
from training.datasets.tables import TIMESTAMP, Dataset, timestamps_ms
from training.item_graph import ItemGraph, with_neighbours
from training.item_statistics import items_as_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Items with their statistics, events and queries, all strictly before `now_ms`."""

    now_ms: int
    items: pa.Table
    events: pa.Table
    queries: pa.Table

    @property
    def training_range(self) -> TrainingRange:
        """Return the time span of the data."""
        times_ms = timestamps_ms(self.events)
        return TrainingRange(start_ms=int(times_ms.min(initial=self.now_ms)), end_ms=self.now_ms)

    def with_neighbours(self, graph: ItemGraph | None, users: pa.Table) -> "Snapshot":
        """Return the snapshot whose items have their neighbours in the graph; as it is without one."""
        if graph is None:
            return self
        items = with_neighbours(graph, self.items, self.events, self.queries, users, self.now_ms)
        return replace(self, items=items)


def snapshot(dataset: Dataset, now_ms: int) -> Snapshot:
    """Return the dataset as of `now_ms`; its item table holds every item, met or not."""
    return Snapshot(
        now_ms=now_ms,
        items=items_as_of(dataset.items, dataset.events, now_ms),
        events=before(dataset.events, now_ms),
        queries=before(dataset.queries, now_ms),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Requests:
    """Queries as contexts, in order of time, each with the item that it led to."""

    contexts: Sequence[SearchContext]
    item_ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.contexts)

    def __getitem__(self, kept: slice) -> "Requests":
        return Requests(contexts=self.contexts[kept], item_ids=self.item_ids[kept])


def requests_between(
    dataset: Dataset, start_ms: int, end_ms: int, *, newest: int, history_limit: int
) -> Requests:
    """Return at most the `newest` queries in [start, end), each as of its own time."""
    times_ms = timestamps_ms(dataset.queries)
    rows = np.flatnonzero((times_ms >= start_ms) & (times_ms < end_ms))[-newest:]
    queries = dataset.queries.take(pa.array(rows))
    contexts = list(search_contexts(dataset, queries, history_limit=history_limit))
    return Requests(contexts=contexts, item_ids=queries.column("item_id").to_pylist())


def browsing_at(dataset: Dataset, now_ms: int, *, newest: int, history_limit: int) -> Requests:
    """Return a request without a query of each of the `newest` users to have acted before `now_ms`.

    They are asked at that moment, who acted last comes last, and they led to nothing yet.
    """
    users = before(dataset.events, now_ms).column("user_id").to_pylist()
    last = list(dict.fromkeys(reversed(users)))[:newest][::-1]
    queries = pa.table(
        {
            "query": pa.array([""] * len(last), pa.string()),
            "user_id": pa.array(last, pa.string()),
            "timestamp": pa.array([now_ms] * len(last), TIMESTAMP),
        }
    )
    contexts = list(search_contexts(dataset, queries, history_limit=history_limit))
    return Requests(contexts=contexts, item_ids=[""] * len(contexts))
