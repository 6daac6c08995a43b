import json
import os
from pathlib import Path

import pytest

from shards.errors import InvalidInput
from training.datasets import amazon_beauty
from training.datasets.contexts import search_contexts
from training.datasets.splits import known_until_ms, rows_of
from training.datasets.tables import Dataset, timestamps_ms


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "amazon_beauty"
    folder.mkdir()
    (folder / "sequences.txt").write_text("u a b c\nv c d a b\n")
    (folder / "item_attributes.json").write_text(json.dumps({"a": [1, 2], "b": [2], "d": []}))
    return tmp_path


def asked(dataset: Dataset, split: str) -> list[tuple[str, tuple[str, ...], str]]:
    queries = rows_of(dataset.queries, split)
    contexts = search_contexts(dataset, queries, history_limit=9)
    targets = queries.column("item_id").to_pylist()
    return sorted(
        (c.user.user_id, c.user.history.item_ids, item) for c, item in zip(contexts, targets, strict=True)
    )


def test_the_last_item_is_test_the_one_before_valid_and_the_first_is_asked_by_nobody(data_dir: Path) -> None:
    dataset = amazon_beauty.load(data_dir)
    assert asked(dataset, "test") == [("u", ("a", "b"), "c"), ("v", ("c", "d", "a"), "b")]
    assert asked(dataset, "valid") == [("u", ("a",), "b"), ("v", ("c", "d"), "a")]
    assert asked(dataset, "train") == [("v", ("c",), "d")]


def test_positions_count_from_the_end_a_day_each(data_dir: Path) -> None:
    dataset = amazon_beauty.load(data_dir)
    last_ms = int(amazon_beauty.LAST.timestamp() * 1000)
    days = [(last_ms - time) // 86_400_000 for time in timestamps_ms(dataset.events).tolist()]
    assert list(zip(dataset.events.column("event_id").to_pylist(), days, strict=True)) == [
        ("v-4", 3),
        ("u-3", 2),
        ("v-3", 2),
        ("u-2", 1),
        ("v-2", 1),
        ("u-1", 0),
        ("v-1", 0),
    ]
    assert known_until_ms(dataset) == last_ms


def test_items_have_their_attributes_and_no_titles(data_dir: Path) -> None:
    items = amazon_beauty.load(data_dir).items.to_pylist()
    assert [(row["item_id"], row["attributes"]) for row in items] == [
        ("a", ["1", "2"]),
        ("b", ["2"]),
        ("c", []),
        ("d", []),
    ]
    assert {row["title"] for row in items} == {""}


def test_the_first_users_are_a_dataset_of_what_they_met(data_dir: Path) -> None:
    dataset = amazon_beauty.first_users(amazon_beauty.load(data_dir), 1)
    assert dataset.users.column("user_id").to_pylist() == ["u"]
    assert dataset.items.column("item_id").to_pylist() == ["a", "b", "c"]
    assert asked(dataset, "test") == [("u", ("a", "b"), "c")]


def test_missing_and_broken_files_are_named(data_dir: Path) -> None:
    attributes = data_dir / "amazon_beauty" / "item_attributes.json"
    attributes.write_text("{")
    with pytest.raises(InvalidInput, match=r"item_attributes\.json is broken"):
        amazon_beauty.load(data_dir)
    attributes.unlink()
    with pytest.raises(InvalidInput, match=r"item_attributes\.json does not exist"):
        amazon_beauty.load(data_dir)


@pytest.mark.data
def test_the_real_data_has_its_published_sizes() -> None:
    folder = os.environ.get("HEADRACE_DATA_DIR")
    if not folder:
        pytest.skip("HEADRACE_DATA_DIR is not set")
    dataset = amazon_beauty.load(Path(folder))
    sizes = [len(table) for table in dataset.tables().values()]
    assert sizes == [12_101, 22_363, 198_502, 198_502 - 22_363]
    assert len(rows_of(dataset.queries, "test")) == 22_363
