"""A shop's own tables as they come: other names, other types, and much that is missing."""

import datetime
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import InvalidInput
from training.datasets import parquet
from training.datasets.own_shop import OwnShop, ReadShop, read_shop
from training.datasets.tables import timestamps_ms
from training.datasets.visits import visit_starts_ms

MINUTE_MS = 60_000
DAY_MS = 1440 * MINUTE_MS
START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
ITEMS, USERS, EVENTS = 40, 12, 400
COLOURS, THINGS = ("red", "blue"), ("mug", "lamp", "bag")


def items() -> pa.Table:
    return pa.table(
        {
            "SKU": pa.array(range(ITEMS), pa.int32()),
            "Product Name": [f"{COLOURS[n % 2]} {THINGS[n % 3]} {n}" for n in range(ITEMS)],
            "Main Category": [("kitchen", "light", "travel")[n % 3] for n in range(ITEMS)],
            "tags": [["gift"] if n % 2 else ["gift", "new"] for n in range(ITEMS)],
            "price": [float(n) for n in range(ITEMS)],
            "link": [f"https://shop/{n}" for n in range(ITEMS)],
            "on_sale": [bool(n % 2) for n in range(ITEMS)],
            "popularity": [1.0] * ITEMS,
            "embedding": [[0.1, 0.2]] * ITEMS,
        }
    )


def events(**changed: Sequence[object]) -> pa.Table:
    columns: dict[str, Sequence[object]] = {
        "customer": [float(n % USERS) for n in range(EVENTS)],
        "sku": [n * 7 % ITEMS for n in range(EVENTS)],
        "event_time": [int(START.timestamp()) + n * 3600 for n in range(EVENTS)],
        "channel": ["web"] * EVENTS,
    }
    return pa.table(columns | changed)


def read(folder: Path, tables: dict[str, pa.Table], **settings: object) -> ReadShop:
    for name, table in tables.items():
        pq.write_table(table, folder / f"{name}.parquet")
    paths = {name: folder / f"{name}.parquet" for name in tables}
    return read_shop(OwnShop(name="shop", paths=paths, **settings))  # type: ignore[arg-type]


def problems(folder: Path, tables: dict[str, pa.Table], **settings: object) -> list[str]:
    with pytest.raises(InvalidInput) as refused:
        read(folder, tables, **settings)
    return [f"{v.field}: {v.description}" for v in refused.value.violations]


def test_what_is_missing_is_made_and_every_change_is_told(tmp_path: Path) -> None:
    shop = read(tmp_path, {"items": items(), "events": events()})
    assert shop.renamed["events"] == {"user_id": "customer", "item_id": "sku", "timestamp": "event_time"}
    assert shop.renamed["items"] == {"item_id": "SKU", "title": "Product Name"}
    data = shop.dataset
    assert data.queries_are_proxies
    assert data.users.column("user_id").to_pylist() == sorted(str(n) for n in range(USERS))
    assert set(data.events.column("action").to_pylist()) == {"take"}
    assert len(set(data.events.column("event_id").to_pylist())) == EVENTS
    assert data.queries.column("split").value_counts().to_pylist() == [
        {"values": "train", "counts": EVENTS * 8 // 10},
        {"values": "valid", "counts": EVENTS // 10},
        {"values": "test", "counts": EVENTS // 10},
    ]
    assert shop.columns.categories == ("main_category", "on_sale")
    assert shop.columns.tags == ("tags",)
    assert shop.columns.numbers == ("price",)
    told = "\n".join(shop.notes)
    for column in ("items.popularity", "items.embedding", "events.channel", "events.timestamp is read as s"):
        assert column in told
    parquet.save(data, tmp_path / "data")
    again = parquet.load(tmp_path / "data")
    assert again.name == "shop"
    assert again.tables() == data.tables()


def test_no_query_sees_its_own_visit(tmp_path: Path) -> None:
    times_s = [int(START.timestamp()) + n // 4 * 86_400 + n % 4 * 600 for n in range(EVENTS)]
    customers = [n // 4 % USERS for n in range(EVENTS)]
    shop = read(tmp_path, {"items": items(), "events": events(event_time=times_s, customer=customers)})
    event_times = dict(zip(shop.dataset.events.column("event_id").to_pylist(), times_s, strict=True))
    queries = shop.dataset.queries
    for query_id, time_ms in zip(queries.column("query_id").to_pylist(), timestamps_ms(queries), strict=True):
        taken_s = event_times[query_id.removeprefix("q-")]
        assert time_ms == taken_s // 86_400 * 86_400_000


def test_visits_end_with_a_pause_or_a_session() -> None:
    minutes = [0, 29, 58, 90, 0, 200]
    table = pa.table(
        {
            "user_id": ["a", "a", "a", "a", "b", "a"],
            "session_id": [None, None, None, None, "s", "s"],
            "timestamp": pa.array([m * MINUTE_MS for m in minutes], pa.timestamp("ms", tz="UTC")),
        }
    )
    assert (visit_starts_ms(table) // MINUTE_MS).tolist() == [0, 0, 0, 90, 0, 200]
    without = table.drop_columns(["session_id"])
    assert np.array_equal(visit_starts_ms(without) // MINUTE_MS, [0, 0, 0, 90, 0, 200])


def test_a_log_and_its_splits_are_kept(tmp_path: Path) -> None:
    log = pa.table(
        {
            "search_id": [f"s{n}" for n in range(60)],
            "q": ["mug"] * 60,
            "user": [0] * 60,
            "clicked_item_id": [n % ITEMS for n in range(60)],
            "timestamp": [START + datetime.timedelta(days=n) for n in range(60)],
            "split": ["train"] * 40 + ["valid"] * 10 + ["test"] * 10,
        }
    )
    shop = read(tmp_path, {"items": items(), "events": events(), "queries": log})
    assert not shop.dataset.queries_are_proxies
    assert shop.dataset.queries.column("split").to_pylist() == log.column("split").to_pylist()
    short = {"items": items(), "events": events(), "queries": log.drop_columns(["split"]).slice(0, 9)}
    assert problems(tmp_path, short) == ["queries: are 9; to hold some out and learn from others it takes 50"]


def test_searches_without_items_lead_to_what_was_taken_next(tmp_path: Path) -> None:
    start = int(START.timestamp())
    # User n takes item n at minute 20 of day n, and searches at minute 10; every third only the day after.
    users = list(range(90))
    took = pa.table(
        {
            "user_id": [str(n) for n in users],
            "item_id": [n % ITEMS for n in users],
            "action": ["purchase"] * 90,
            "timestamp": [start + n * 86_400 + 1200 for n in users],
        }
    )
    viewed = took.set_column(2, "action", pa.array(["view"] * 90))
    viewed = viewed.set_column(1, "item_id", pa.array([(n + 1) % ITEMS for n in users]))
    log = pa.table(
        {
            "query": ["mug"] * 91,
            "user_id": [*(str(n) for n in users), ""],
            "timestamp": [start + (n + (n % 3 == 2)) * 86_400 + 600 for n in [*users, 0]],
        }
    )
    tables = {"items": items(), "events": pa.concat_tables([took, viewed]), "queries": log}
    shop = read(tmp_path, tables)
    queries = shop.dataset.queries
    assert "queries: 31 are left out that led to nothing" in shop.notes
    pairs = zip(queries.column("user_id").to_pylist(), queries.column("item_id").to_pylist(), strict=True)
    assert sorted(pairs) == sorted((str(n), str(n % ITEMS)) for n in users if n % 3 != 2)


def test_every_problem_is_named_at_once_by_table_column_and_row(tmp_path: Path) -> None:
    broken = items()
    broken = broken.set_column(0, "SKU", pa.array([0, *range(ITEMS - 1)]))
    prices = [float("nan") if n in (3, 5) else 1.0 for n in range(ITEMS)]
    broken = broken.set_column(4, "price", pa.array(prices))
    unknown = events(sku=[999 if n in (7, 8) else 1 for n in range(EVENTS)])
    assert problems(tmp_path, {"items": broken, "events": unknown}) == [
        "items.price: is NaN or infinite in 2 rows, the first is row 3",
        "items.item_id: repeats an earlier id in 1 row, the first is row 1",
        "events.item_id: is not in items.item_id in 2 rows, the first is row 7",
    ]


def test_what_is_told_of_columns_must_be_there(tmp_path: Path) -> None:
    tables = {"items": items(), "events": events()}
    told = {"events": {"user_id": "buyer", "colour": "channel"}, "queries": {"query": "q"}}
    assert problems(tmp_path, tables, columns=told) == [
        "events.user_id: shall be 'buyer', which is not there; customer, sku, event_time, channel are",
        "events.colour: is no column of events; action, amount, completion, coupon_discount, event_id, "
        "item_id, price, price_gbp, quantity, rating, session_id, timestamp, user_id are",
        "queries: has columns told and no file",
    ]
    assert problems(tmp_path, tables, taken=("buy",)) == ["taken: 'buy' is no action of the events; take are"]
    nameless = {"items": items(), "events": events().drop_columns(["customer"])}
    assert "events.user_id: is missing" in problems(tmp_path, nameless)
