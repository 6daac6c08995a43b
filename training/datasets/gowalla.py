"""Gowalla check-ins: who has been where, with the place of every point of interest.

Source: SNAP's Gowalla, as `gowalla_poi` of the data directory; research use. It tells how often a user
checked in and whether that is training, validation or test, but not when. So the times are made up: training
is one day, validation the next and test the third, and within a user's day the place with most check-ins
comes last, as the one that tells best where the user is. Nothing may be read into ages. Queries are visits
without words.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards.errors import FieldViolation, InvalidInput
from training.datasets import schema
from training.datasets.splits import SPLITS
from training.datasets.statistics import DAY_MS
from training.datasets.tables import TIMESTAMP, Dataset, canonical_types, sort_tables


def load(data_dir: Path) -> Dataset:
    """Read `gowalla_poi` under the data directory into the canonical tables and check them.

    A user's check-ins at a place are one event with the action "checkin" and their number as `quantity`.
    Items have `latitude_deg` and `longitude_deg`. Raises `InvalidInput` if a file is missing or broken.
    """
    folder = data_dir / "gowalla_poi"
    places = _read(folder / "pois.parquet")
    visits = [_with_times(_read(folder / f"{split}.parquet"), day) for day, split in enumerate(SPLITS, 1)]
    events = pa.concat_tables(visits)
    dataset = Dataset(
        name="gowalla_poi",
        items=pa.table(
            {
                "item_id": _ids(places, "poi_id"),
                "title": pa.array([""] * len(places), pa.string()),
                "latitude_deg": places.column("latitude_deg"),
                "longitude_deg": places.column("longitude_deg"),
            }
        ),
        users=pa.table({"user_id": pc.unique(_ids(events, "user_id"))}),
        events=pa.table(
            {
                "event_id": pc.binary_join_element_wise(
                    _ids(events, "user_id"), _ids(events, "poi_id"), _ids(events, "timestamp"), "-"
                ),
                "user_id": _ids(events, "user_id"),
                "item_id": _ids(events, "poi_id"),
                "action": pa.array(["checkin"] * len(events), pa.string()),
                "timestamp": events.column("timestamp"),
                "quantity": events.column("checkin_count"),
            }
        ),
        queries=pa.concat_tables(
            _visits(table, split, day)
            for day, (split, table) in enumerate(zip(SPLITS, visits, strict=True), 1)
        ),
        queries_are_proxies=False,
    )
    schema.check(dataset)
    return sort_tables(dataset)


def _read(path: Path) -> pa.Table:
    if not path.is_file():
        raise InvalidInput(FieldViolation("data_dir", f"{path} does not exist"))
    return canonical_types(pq.read_table(path))


def _ids(table: pa.Table, column: str) -> pa.ChunkedArray:
    values = table.column(column)
    return values.cast(pa.int64() if pa.types.is_timestamp(values.type) else values.type).cast(pa.string())


def _with_times(visits: pa.Table, day: int) -> pa.Table:
    """Return the visits with the made-up time of each: on this day, few check-ins before many."""
    counts = visits.column("checkin_count").to_numpy()
    order = np.argsort(counts, kind="stable")
    place = np.empty(len(counts), np.int64)
    place[order] = np.arange(len(counts))
    return visits.append_column("timestamp", pa.array(day * DAY_MS + place, TIMESTAMP))


def _visits(visits: pa.Table, split: str, day: int) -> pa.Table:
    """Return each user's first visit of a split as a query without words, at the start of its day."""
    firsts = visits.group_by("user_id", use_threads=False).aggregate([("poi_id", "first")])
    size = len(firsts)
    return pa.table(
        {
            "query_id": pc.binary_join_element_wise(pa.scalar(split), _ids(firsts, "user_id"), "-"),
            "timestamp": pa.array([day * DAY_MS] * size, TIMESTAMP),
            "user_id": _ids(firsts, "user_id"),
            "query": pa.array([""] * size, pa.string()),
            "item_id": _ids(firsts, "poi_id_first"),
            "split": pa.array([split] * size, pa.string()),
        }
    )
