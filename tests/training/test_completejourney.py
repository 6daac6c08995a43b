"""The grocer's receipts as canonical tables, and what its channels find."""

import datetime
import os
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import InvalidInput
from tests.training.shard_answers import asked
from training.channels import Destination
from training.datasets import completejourney
from training.datasets.tables import Dataset
from training.evaluation.next_items import next_items
from training.pipeline import train
from training.recipes import RECIPES
from training.run import Run

BANANAS, CEREAL, GASOLINE = "1", "2", "3"


def at(month: int) -> datetime.datetime:
    return datetime.datetime(2017, month, 3, 9)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Two households; basket 11 has fuel and a line that was given away."""
    folder = tmp_path / "completejourney"
    folder.mkdir()
    lines = [
        ("u", "10", BANANAS, 2.0, 1.0, 0.0, at(5)),
        ("u", "10", CEREAL, 1.0, 4.0, 0.75, at(5)),
        ("v", "11", GASOLINE, 9000.0, 20.0, 0.0, at(11)),
        ("v", "11", CEREAL, 0.0, 0.0, 0.0, at(11)),
        ("v", "11", BANANAS, 1.0, 0.5, 0.0, at(11)),
        ("v", "12", CEREAL, 1.0, 4.0, 0.0, at(12)),
    ]
    names = ("household_id", "basket_id", "product_id", "quantity", "sales_value", "coupon_disc")
    columns = dict(zip((*names, "transaction_timestamp"), map(list, zip(*lines, strict=True)), strict=True))
    pq.write_table(pa.table(columns), folder / "transactions_sample.parquet")
    products = {
        "product_id": [BANANAS, CEREAL, GASOLINE, "never sold"],
        "manufacturer_id": ["2", "1046", "69", "2"],
        "department": ["PRODUCE", "GROCERY", "FUEL", "PRODUCE"],
        "brand": ["National", "National", "Private", "National"],
        "product_category": ["TROPICAL FRUIT", "COLD CEREAL", "COUPON/MISC ITEMS", "TROPICAL FRUIT"],
        "product_type": ["BANANAS", "KIDS CEREAL", "GASOLINE", "MANGOS"],
        "package_size": [None, "14.5 OZ", None, None],
    }
    pq.write_table(pa.table(products), folder / "products.parquet")
    pq.write_table(pa.table({"household_id": ["u"], "age": ["65+"]}), folder / "demographics.parquet")
    return tmp_path


def test_a_line_is_a_purchase_with_what_was_paid_for_it(data_dir: Path) -> None:
    dataset = completejourney.load(data_dir)
    first, second, third, last = dataset.events.to_pylist()
    assert (first["item_id"], first["quantity"], first["price"], first["amount"]) == (BANANAS, 2, 0.5, 1)
    assert (second["item_id"], second["coupon_discount"]) == (CEREAL, 0.75)
    assert (third["session_id"], third["item_id"]) == ("11", BANANAS), "fuel and gifts are left out"
    assert (last["session_id"], last["item_id"]) == ("12", CEREAL)
    assert dataset.items.column("item_id").to_pylist() == [BANANAS, CEREAL]
    assert dataset.items.column("title").to_pylist() == ["BANANAS", "KIDS CEREAL 14.5 OZ"]
    assert dataset.users.to_pylist() == [{"user_id": "u", "age": "65+"}, {"user_id": "v", "age": None}]


def test_a_trip_is_a_request_without_words_that_led_to_its_dearest_line(data_dir: Path) -> None:
    trips = completejourney.load(data_dir).queries.to_pylist()
    found = [(trip["user_id"], trip["query"], trip["item_id"], trip["split"]) for trip in trips]
    assert found == [("u", "", CEREAL, "train"), ("v", "", BANANAS, "valid"), ("v", "", CEREAL, "test")]


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"products\.parquet does not exist"):
        completejourney.load(tmp_path)


@pytest.fixture(scope="module")
def real() -> Dataset:
    folder = os.environ.get("HEADRACE_DATA_DIR")
    if not folder:
        pytest.skip("HEADRACE_DATA_DIR is not set")
    return completejourney.load(Path(folder))


@pytest.mark.data
def test_a_trip_happens_at_one_moment_and_its_own_lines_are_no_history(real: Dataset) -> None:
    times = real.events.group_by("session_id").aggregate([("timestamp", "count_distinct")])
    assert set(times.column("timestamp_count_distinct").to_pylist()) == {1}


@pytest.mark.data
def test_a_shard_answers_with_items_of_makers_that_a_household_buys(real: Dataset, tmp_path: Path) -> None:
    whole = RECIPES["completejourney_next"]
    makers = tuple(channel for channel in whole.channels if channel.name == "makers")
    recipe = replace(whole, channels=makers, fit_merge=False)
    destination = Destination(root=tmp_path / "models", prefix="grocer", version="1")
    release = train(Run(recipe=recipe, dataset=real, seed=0, gate=lambda *_: True), destination).release
    contexts = [user.context for user in next_items(real, "test", history_limit=release.history_limit)[:20]]
    maker_of = dict(
        zip(
            *(real.items.column(name).to_pylist() for name in ("item_id", "manufacturer")),
            strict=True,
        )
    )
    pages = asked(tmp_path / "models", tmp_path / "shard", release.channels[0].model, contexts)
    bought = [{maker_of[item_id] for item_id in context.user.history.item_ids} for context in contexts]
    first = [maker_of[page[0]] in makers for page, makers in zip(pages, bought, strict=True)]
    assert sum(first) >= 18, "similar makers may come first for a few"
