"""What pages would have shown and what came close: the events that channel "cached" answers from (C7).

A live system records them as it shows pages (docs/adr/0013-cached-candidates.md). For data without pages a
release answers the searches again, and the first places of its ranking stand for the page.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa

from training.datasets.contexts import search_contexts
from training.datasets.tables import TIMESTAMP, Dataset, sort_tables, timestamps_ms
from training.evaluation.offline import Cascade, GateRule, retrieve, staged

SHOWN, UNSHOWN = "shown", "unshown"
"""Actions of what was on a page, and of what ranking put behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageSize:
    """How many items a page shows, and how many more are remembered."""

    shown: int = 10
    unshown: int = 20

    def __post_init__(self) -> None:
        if self.shown < 1 or self.unshown < 1:
            raise ValueError("shown and unshown must be at least 1")


def with_pages(
    dataset: Dataset,
    queries: pa.Table,
    cascade: Cascade,
    *,
    gate: GateRule,
    size: PageSize,
    on_query: Callable[[], None] = lambda: None,
) -> Dataset:
    """Return the dataset with the events of the pages that these queries of known users get.

    The release should know nothing of what came after the queries. Events have the query's time, and ids
    that sort before those of what the page led to.
    """
    limit = cascade.release.history_limit
    query_ids = queries.column("query_id").to_pylist()
    times_ms = timestamps_ms(queries).tolist()
    rows: list[tuple[str, str, str, str, int]] = []
    for query_id, time_ms, context in zip(
        query_ids, times_ms, search_contexts(dataset, queries, history_limit=limit), strict=True
    ):
        if context.user.user_id:
            retrieved = retrieve(cascade, context)
            found = staged(
                cascade,
                context,
                retrieved,
                gate_open=gate(context, retrieved),
                depth=size.shown + size.unshown,
            )
            ranking = list(found.values())[-1][: size.shown + size.unshown]
            for place, item_id in enumerate(ranking):
                action = SHOWN if place < size.shown else UNSHOWN
                # Where two events are of one moment the later id is the newer one: the best comes last.
                event_id = f"!{query_id}-{len(ranking) - place:04d}"
                rows.append((event_id, context.user.user_id, item_id, action, time_ms))
        on_query()
    return sort_tables(replace(dataset, events=pa.concat_tables([dataset.events, _table(dataset, rows)])))


def _table(dataset: Dataset, rows: list[tuple[str, str, str, str, int]]) -> pa.Table:
    """Return the events with the columns of the dataset's; what a page cannot tell has no value."""
    names = ("event_id", "user_id", "item_id", "action", "timestamp")
    told = {name: [row[column] for row in rows] for column, name in enumerate(names)}
    told_types = {name: TIMESTAMP if name == "timestamp" else pa.string() for name in names}
    schema = dataset.events.schema
    return pa.table(
        {
            name: pa.array(told[name], told_types[name])
            if name in told
            else pa.nulls(len(rows), schema.field(name).type)
            for name in schema.names
        },
    ).cast(schema)
