"""Amazon Beauty, 5-core: what each user reviewed, in order, and numbered attributes of the items.

Source: McAuley's Amazon review data (He and McAuley, "Ups and Downs", WWW 2016), in the form of S3-Rec (Zhou
et al., CIKM 2020); for research, so keep it internal. **The file holds an order and no times**: a timestamp
here is a position counted from the end. Everybody's last item is at `LAST`, the one before it a day earlier,
and so on. Ages in days tell the order and nothing else. There are no searches: a query is a user who browses.

Leave-one-out (SASRec, arXiv 1808.09781, section IV): a user's last item is test, the one before it valid.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from shards.errors import FieldViolation, InvalidInput
from training.datasets import schema
from training.datasets.tables import TIMESTAMP, Dataset, sort_tables

LAST = datetime(2014, 7, 23, tzinfo=UTC)
"""Where everybody's last item stands: the day that the reviews end."""

_STEP = timedelta(days=1)
_SPLITS = {1: "test", 2: "valid"}


def load(data_dir: Path) -> Dataset:
    """Read `amazon_beauty` under the data directory into the canonical tables and check them.

    Raises `InvalidInput` if a file is missing, has no such content or breaks the schema.
    """
    sequences = list(_sequences(_read(data_dir, "sequences.txt")))
    return dataset_of("amazon_beauty", sequences, _attributes(_read(data_dir, "item_attributes.json")))


def dataset_of(
    name: str, sequences: Sequence[tuple[str, Sequence[str]]], attributes: dict[str, list[str]]
) -> Dataset:
    """Return what users (id, then item ids in order) did as a dataset; raises `InvalidInput`."""
    events = [
        (user_id, item_id, len(item_ids) - place)
        for user_id, item_ids in sequences
        for place, item_id in enumerate(item_ids)
    ]
    lengths = {user_id: len(item_ids) for user_id, item_ids in sequences}
    # A user's first item follows nothing that it could be found by.
    asked = [(user_id, item_id, left) for user_id, item_id, left in events if left < lengths[user_id]]
    item_ids = sorted({item_id for _, item_id, _ in events})
    dataset = Dataset(
        name=name,
        items=pa.table(
            {
                "item_id": pa.array(item_ids, pa.string()),
                "title": pa.array([""] * len(item_ids), pa.string()),
                "attributes": pa.array([attributes.get(i, []) for i in item_ids], pa.list_(pa.string())),
            }
        ),
        users=pa.table({"user_id": pa.array(list(lengths), pa.string())}),
        events=pa.table(
            {**_columns("event_id", events), "action": pa.repeat(pa.scalar("review"), len(events))}
        ),
        queries=pa.table(
            {
                **_columns("query_id", asked),
                "query": pa.repeat(pa.scalar(""), len(asked)),
                "split": pa.array([_SPLITS.get(left, "train") for _, _, left in asked], pa.string()),
            }
        ),
        queries_are_proxies=False,
    )
    schema.check(dataset)
    return sort_tables(dataset)


def first_users(dataset: Dataset, count: int) -> Dataset:
    """Return what `count` users did, the first by id, and the items that they met."""
    users = dataset.users.slice(0, count)
    kept = {
        name: table.filter(pc.is_in(table.column("user_id"), value_set=users.column("user_id")))
        for name, table in (("events", dataset.events), ("queries", dataset.queries))
    }
    met = pc.is_in(dataset.items.column("item_id"), value_set=kept["events"].column("item_id"))
    return replace(dataset, users=users, items=dataset.items.filter(met), **kept)


def _columns(key: str, rows: Sequence[tuple[str, str, int]]) -> dict[str, pa.Array]:
    return {
        key: pa.array([f"{user_id}-{left}" for user_id, _, left in rows], pa.string()),
        "user_id": pa.array([user_id for user_id, _, _ in rows], pa.string()),
        "item_id": pa.array([item_id for _, item_id, _ in rows], pa.string()),
        "timestamp": pa.array([LAST - (left - 1) * _STEP for _, _, left in rows], TIMESTAMP),
    }


def _read(data_dir: Path, name: str) -> str:
    path = data_dir / "amazon_beauty" / name
    if not path.is_file():
        raise InvalidInput(FieldViolation("data_dir", f"{path} does not exist"))
    return path.read_text(encoding="utf-8")


def _sequences(text: str) -> Iterator[tuple[str, Sequence[str]]]:
    for line in text.splitlines():
        user_id, *item_ids = line.split()
        yield user_id, item_ids


def _attributes(text: str) -> dict[str, list[str]]:
    try:
        return {item_id: [str(number) for number in numbers] for item_id, numbers in json.loads(text).items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidInput(FieldViolation("data_dir", f"item_attributes.json is broken: {error}")) from error
