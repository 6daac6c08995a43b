"""A cut of online_retail that trains within seconds: the searches for a few words, and what they led to."""

import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests.bench.conflated_queries import Senses, conflated
from training.datasets import online_retail
from training.datasets.tables import Dataset


def retail() -> Dataset:
    """Return the real data; skips the test where it is not there."""
    folder = os.environ.get("HEADRACE_DATA_DIR")
    if not folder:
        pytest.skip("HEADRACE_DATA_DIR is not set")
    return online_retail.load(Path(folder))


def two_meanings(pairs: int) -> tuple[Dataset, list[Senses]]:
    """Return the searches for words of two meanings, what they led to and what users did with that."""
    dataset, senses = conflated(retail(), pairs)
    queries = _where(dataset.queries, "query", [sense.word for sense in senses])
    item_ids = queries.column("item_id").unique().to_pylist()
    return replace(
        dataset,
        queries=queries,
        items=_where(dataset.items, "item_id", item_ids),
        events=_where(dataset.events, "item_id", item_ids),
    ), senses


def first_items(items: int, users: int) -> Dataset:
    """Return the events of the first users on the items that are bought most, and nothing else."""
    dataset = retail()
    counts = dataset.events.column("item_id").value_counts().to_pylist()
    best = sorted(counts, key=lambda line: (-line["counts"], line["values"]))[:items]
    item_ids = [line["values"] for line in best]
    user_ids = dataset.users.column("user_id").to_pylist()[:users]
    return replace(
        dataset,
        items=_where(dataset.items, "item_id", item_ids),
        users=_where(dataset.users, "user_id", user_ids),
        events=_where(_where(dataset.events, "item_id", item_ids), "user_id", user_ids),
        queries=_where(_where(dataset.queries, "item_id", item_ids), "user_id", user_ids),
    )


def _where(table: pa.Table, column: str, values: list[str]) -> pa.Table:
    return table.filter(pc.is_in(table.column(column), pa.array(values)))
