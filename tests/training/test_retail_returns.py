"""Cancellations beside purchases: which lines count, and from when on."""

import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import InvalidInput
from training.datasets import retail_returns
from training.recipes import RECIPES
from training.snapshot import requests_between
from training.task_labels import task_labels

DAY = datetime.timedelta(days=1)
START = datetime.datetime(2010, 5, 1, 9)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A customer buys A and B; A comes back ten days later, B after a month; other lines are of nobody."""
    folder = tmp_path / "online_retail"
    folder.mkdir()
    purchases = {
        "invoice_id": ["1", "1", "2"],
        "item_id": ["A", "B", "A"],
        "user_id": ["7", "7", "8"],
        "timestamp": [START, START, START + 60 * DAY],
        "quantity": [2, 1, 1],
        "price_gbp": [2.5, 1.0, 2.5],
        "country": ["UK"] * 3,
    }
    pq.write_table(pa.table(purchases), folder / "purchases.parquet")
    pq.write_table(pa.table({"item_id": ["A", "B"], "title": ["RED MUG", "LAMP"]}), folder / "items.parquet")
    queries = {
        "query_id": ["1-A", "2-A"],
        "timestamp": [START, START + 60 * DAY],
        "user_id": ["7", "8"],
        "query": ["red", "mug"],
        "item_id": ["A", "A"],
        "split": ["train", "test"],
    }
    pq.write_table(pa.table(queries), folder / "queries.parquet")
    lines = [
        ("1", "A", 2, START, 7.0),
        ("C3", "A", -1, START + 10 * DAY, 7.0),
        ("C3", "A", -1, START + 10 * DAY, 7.0),
        ("C4", "B", -1, START + 30 * DAY, 7.0),
        ("C5", "A", -1, START + 3 * DAY, None),
        ("C6", "POST", -1, START + 3 * DAY, 7.0),
        ("C7", "A", -1, START + 3 * DAY, 99.0),
    ]
    names = ("Invoice", "StockCode", "Quantity", "InvoiceDate", "Customer ID")
    raw = dict(zip(names, (list(column) for column in zip(*lines, strict=True)), strict=True))
    raw["InvoiceDate"] = [str(moment) for moment in raw["InvoiceDate"]]
    pq.write_table(pa.table(raw | {"Price": [2.5] * len(lines)}), folder / "online_retail_2009_2010.parquet")
    return tmp_path


def test_a_line_of_a_known_customer_and_item_is_a_return(data_dir: Path) -> None:
    events = retail_returns.load(data_dir).events.to_pylist()
    returned = [event for event in events if event["action"] == retail_returns.RETURN]
    assert [(e["event_id"], e["user_id"], e["item_id"], e["quantity"]) for e in returned] == [
        ("C3-A", "7", "A", 2),
        ("C4-B", "7", "B", 1),
    ]
    assert returned[0]["timestamp"].date() == (START + 10 * DAY).date()
    assert len(events) == 5


def test_a_return_within_two_weeks_is_one_of_what_was_bought(data_dir: Path) -> None:
    dataset = retail_returns.load(data_dir)
    requests = requests_between(dataset, 0, 10**13, newest=10, history_limit=10)
    until_ms = int((START + 200 * DAY).timestamp() * 1000)
    labels = task_labels(dataset, requests, RECIPES["retail_returns"].tasks, until_ms=until_ms)
    assert [dict(of_return.by_item) for _, of_return in labels] == [{"A": 1.0, "B": 0.0}, {"A": 0.0}]


def test_missing_lines_are_named(data_dir: Path) -> None:
    (data_dir / "online_retail" / "online_retail_2009_2010.parquet").unlink()
    with pytest.raises(InvalidInput, match=r"online_retail_2009_2010.parquet does not exist"):
        retail_returns.load(data_dir)
