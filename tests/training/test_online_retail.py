import datetime
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import InvalidInput
from training.datasets import online_retail
from training.datasets.contexts import search_contexts
from training.datasets.splits import rows_of
from training.datasets.tables import Dataset, timestamps_ms


def at(minute: int) -> datetime.datetime:
    return datetime.datetime(2010, 5, 1, 9, minute)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Two customers; invoice 2 of the first spans two minutes, its query stands at the later one."""
    folder = tmp_path / "online_retail"
    folder.mkdir()
    lines = [
        ("1", "A", "u", at(0), "UK"),
        ("2", "B", "u", at(10), "UK"),
        ("2", "C", "u", at(12), "Eire"),
        ("3", "A", "v", at(11), "Eire"),
    ]
    columns = [list(column) for column in zip(*lines, strict=True)]
    names = ("invoice_id", "item_id", "user_id", "timestamp", "country")
    purchases = dict(zip(names, columns, strict=True)) | {"quantity": [1] * 4, "price_gbp": [2.5] * 4}
    pq.write_table(pa.table(purchases), folder / "purchases.parquet")
    looks_ahead = {"price_gbp": [float("nan")] * 3, "first_sold": [None] * 3}
    items = {"item_id": ["A", "B", "C"], "title": ["RED MUG", "BLUE MUG", "LAMP"]} | looks_ahead
    pq.write_table(pa.table(items), folder / "items.parquet")
    queries = {
        "query_id": ["1-A", "2-C"],
        "timestamp": [at(0), at(12)],
        "user_id": ["u", "u"],
        "query": ["red", "lamp"],
        "item_id": ["A", "C"],
        "split": ["train", "test"],
    }
    pq.write_table(pa.table(queries), folder / "queries.parquet")
    return tmp_path


def test_columns_that_look_ahead_are_not_there(data_dir: Path) -> None:
    assert online_retail.load(data_dir).items.column_names == ["item_id", "title"]


def test_an_invoice_happens_at_its_earliest_line(data_dir: Path) -> None:
    dataset = online_retail.load(data_dir)
    minutes = [row["timestamp"].minute for row in dataset.events.to_pylist()]
    assert dataset.events.column("event_id").to_pylist() == ["1-A", "2-B", "2-C", "3-A"]
    assert minutes == [0, 10, 10, 11]
    assert dataset.queries.column("timestamp").to_pylist()[1].minute == 10


def test_history_leaves_out_the_invoice_of_the_query(data_dir: Path) -> None:
    dataset = online_retail.load(data_dir)
    contexts = list(search_contexts(dataset, dataset.queries, history_limit=9))
    assert [context.user.history.item_ids for context in contexts] == [(), ("A",)]


def test_country_is_that_of_the_first_purchase(data_dir: Path) -> None:
    users = online_retail.load(data_dir).users.to_pylist()
    assert users == [{"user_id": "u", "country": "UK"}, {"user_id": "v", "country": "Eire"}]


def test_a_missing_file_is_named(data_dir: Path) -> None:
    (data_dir / "online_retail" / "queries.parquet").unlink()
    with pytest.raises(InvalidInput, match=r"queries\.parquet does not exist"):
        online_retail.load(data_dir)


@pytest.fixture(scope="module")
def real() -> Dataset:
    folder = os.environ.get("HEADRACE_DATA_DIR")
    if not folder:
        pytest.skip("HEADRACE_DATA_DIR is not set")
    return online_retail.load(Path(folder))


@pytest.mark.data
def test_the_real_data_has_its_published_sizes(real: Dataset) -> None:
    assert [len(table) for table in real.tables().values()] == [4006, 4285, 393_634, 69_234]
    assert len(rows_of(real.queries, "test")) == 12_171


@pytest.mark.data
def test_no_real_query_sees_its_own_invoice(real: Dataset) -> None:
    starts = dict(
        zip(
            real.events.column("session_id").to_pylist(),
            timestamps_ms(real.events).tolist(),
            strict=True,
        )
    )
    of_queries = [starts[session] for session in real.queries.column("session_id").to_pylist()]
    np.testing.assert_array_equal(of_queries, timestamps_ms(real.queries))
