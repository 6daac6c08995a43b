"""Gowalla check-ins: who has been where, with the place of every point of interest.

Source: SNAP's Gowalla, as `gowalla_poi` of the data directory; research use. It tells how often a user
checked in and whether that is training, validation or test, but not when. So the times are made up: training
is one day, validation the next and test the third, and within a user's day the place with most check-ins
comes last, as the one that tells best where the user is. Nothing may be read into ages. Queries are visits
without words, one for each place that a user was at.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from shards import geohash
from shards.errors import FieldViolation, InvalidInput
from training.datasets import schema
from training.datasets.splits import SPLITS
from training.datasets.statistics import DAY_MS
from training.datasets.tables import TIMESTAMP, Dataset, canonical_types, sort_tables

CELL_LETTERS = (3, 4, 5)
"""Letters of the geohash cells that places are in: 156, 39 by 20 and 5 km wide at the equator."""


def load(data_dir: Path) -> Dataset:
    """Read `gowalla_poi` under the data directory into the canonical tables and check them.

    A user's check-ins at a place are one event with the action "checkin" and their number as `quantity`.
    Items have `latitude_deg` and `longitude_deg`, and their geohash cells as texts `cell_3` to `cell_5`.
    Raises `InvalidInput` if a file is missing or broken.
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
                **_cells(places),
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
            _searches(table, split) for split, table in zip(SPLITS, visits, strict=True)
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


def _cells(places: pa.Table) -> dict[str, pa.Array]:
    """Return the geohash of each place, by the columns that hold its first letters."""
    latitude_P, longitude_P = (places.column(name).to_numpy() for name in ("latitude_deg", "longitude_deg"))
    codes = geohash.encode(latitude_P, longitude_P).tolist()
    return {
        f"cell_{letters}": pa.array([geohash.text(code, letters) for code in codes], pa.string())
        for letters in CELL_LETTERS
    }


def _searches(visits: pa.Table, split: str) -> pa.Table:
    """Return each visit as a query without words, asked the moment before it."""
    size = len(visits)
    return pa.table(
        {
            "query_id": pc.binary_join_element_wise(
                pa.scalar(split), _ids(visits, "user_id"), _ids(visits, "poi_id"), "-"
            ),
            "timestamp": visits.column("timestamp"),
            "user_id": _ids(visits, "user_id"),
            "query": pa.array([""] * size, pa.string()),
            "item_id": _ids(visits, "poi_id"),
            "split": pa.array([split] * size, pa.string()),
        }
    )
