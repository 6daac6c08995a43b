"""A team's own data: four Parquet files in one folder, see docs/data.md."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shards.errors import FieldViolation, InvalidInput
from training.datasets import schema
from training.datasets.tables import Dataset, canonical_types, sort_tables

FILES = ("items", "users", "events", "queries")


def load(folder: Path) -> Dataset:
    """Read `items.parquet`, `users.parquet`, `events.parquet` and `queries.parquet`, checked and sorted.

    Two keys of the metadata of `queries.parquet` say more: `headrace.name` names the dataset, by default the
    folder's name does, and `headrace.queries` is "proxies" or, by default, "log". Raises
    `InvalidInput` that lists every missing or unreadable file, or every problem with table, column and
    row.
    """
    paths = {name: folder / f"{name}.parquet" for name in FILES}
    missing = [name for name, path in paths.items() if not path.is_file()]
    if missing:
        raise InvalidInput(*(FieldViolation(name, f"{paths[name]} does not exist") for name in missing))
    raw = {name: read_table(name, path) for name, path in paths.items()}
    metadata = raw["queries"].schema.metadata or {}
    origin = metadata.get(b"headrace.queries", b"log")
    dataset = Dataset(
        name=metadata.get(b"headrace.name", folder.name.encode()).decode(),
        queries_are_proxies=origin == b"proxies",
        **{name: canonical_types(table) for name, table in raw.items()},
    )
    schema.check(dataset)
    return sort_tables(dataset)


def read_table(name: str, path: Path) -> pa.Table:
    """Return the table in a file; raises `InvalidInput` naming the table for one that cannot be read."""
    try:
        return pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InvalidInput(FieldViolation(name, f"{path} cannot be read as Parquet: {reason}")) from error


def save(dataset: Dataset, folder: Path) -> None:
    """Write the four tables as Parquet files that `load` reads back."""
    folder.mkdir(parents=True, exist_ok=True)
    origin = "proxies" if dataset.queries_are_proxies else "log"
    for name, table in dataset.tables().items():
        if name == "queries":
            table = table.replace_schema_metadata({"headrace.queries": origin, "headrace.name": dataset.name})
        pq.write_table(table, folder / f"{name}.parquet")
