import dataclasses
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import InvalidInput
from tests.training.small_dataset import small_dataset
from training.datasets import parquet

GUIDE = Path(__file__).parents[2] / "docs" / "data.md"


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    dataset = dataclasses.replace(small_dataset(), queries_are_proxies=True)
    parquet.save(dataset, tmp_path / "small")
    loaded = parquet.load(tmp_path / "small")
    assert loaded.name == "small"
    assert loaded.queries_are_proxies
    for name, table in dataset.tables().items():
        assert loaded.tables()[name].to_pylist() == table.to_pylist()


def test_queries_are_a_log_unless_they_say_otherwise(tmp_path: Path) -> None:
    parquet.save(small_dataset(), tmp_path)
    assert not parquet.load(tmp_path).queries_are_proxies


def test_every_missing_file_is_named(tmp_path: Path) -> None:
    parquet.save(small_dataset(), tmp_path)
    (tmp_path / "items.parquet").unlink()
    (tmp_path / "events.parquet").unlink()
    with pytest.raises(InvalidInput) as caught:
        parquet.load(tmp_path)
    assert [violation.field for violation in caught.value.violations] == ["items", "events"]


def test_a_file_that_is_not_parquet_is_named(tmp_path: Path) -> None:
    parquet.save(small_dataset(), tmp_path)
    (tmp_path / "users.parquet").write_bytes(b"user_id\n1\n")
    with pytest.raises(InvalidInput, match=r"users\.parquet cannot be read as Parquet"):
        parquet.load(tmp_path)


def test_row_numbers_are_those_of_the_file(tmp_path: Path) -> None:
    dataset = small_dataset()
    parquet.save(dataset, tmp_path)
    unsorted = dataset.events.take(pa.array([2, 1, 0])).set_column(2, "item_id", pa.array(["c", "b", "?"]))
    pq.write_table(unsorted, tmp_path / "events.parquet")
    with pytest.raises(
        InvalidInput, match=r"events\.item_id: is not in items\.item_id in 1 row, the first is row 2"
    ):
        parquet.load(tmp_path)


def test_the_example_of_the_guide_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    for block in blocks:
        exec(compile(block, str(GUIDE), "exec"), names)
    dataset = parquet.load(tmp_path / "my-shop")
    assert dataset.queries.column("query").to_pylist() == ["red mug", "lamp", ""]
