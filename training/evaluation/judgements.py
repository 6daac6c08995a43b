"""The queries that an evaluation asks, each with the one item that is relevant."""

from dataclasses import dataclass

from shards.search_context import SearchContext
from training.datasets.contexts import search_contexts
from training.datasets.splits import rows_of
from training.datasets.tables import Dataset
from training.evaluation.report import sample_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One query of an evaluation: its context and the one item that is relevant."""

    query_id: str
    context: SearchContext
    relevant: str


def judged_queries(dataset: Dataset, split: str, *, limit: int, history_limit: int) -> list[Judged]:
    """Return the queries of a split, or with `limit` above 0 a fixed sample of them, as of their own time."""
    queries = rows_of(dataset.queries, split)
    queries = queries.take(sample_rows(tuple(queries.column("query_id").to_pylist()), limit))
    columns = (queries.column(name).to_pylist() for name in ("query_id", "item_id"))
    contexts = search_contexts(dataset, queries, history_limit=history_limit)
    return [
        Judged(query_id=query_id, context=context, relevant=item_id)
        for query_id, item_id, context in zip(*columns, contexts, strict=True)
    ]
