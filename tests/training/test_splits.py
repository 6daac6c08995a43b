import numpy as np
import pyarrow as pa
import pytest

from tests.training.small_dataset import small_dataset
from training.datasets.splits import TimeSplit, before, quantile_split, rows_of, split_of
from training.datasets.tables import TIMESTAMP


def test_labels_change_exactly_at_the_moments() -> None:
    split = TimeSplit(valid_from_ms=10, test_from_ms=20)
    assert split.labels(np.array([9, 10, 19, 20])).to_pylist() == ["train", "valid", "valid", "test"]


def test_quantiles() -> None:
    split = quantile_split(np.arange(100)[::-1], valid=0.1, test=0.2)
    assert split == TimeSplit(valid_from_ms=70, test_from_ms=80)
    with pytest.raises(ValueError, match="positive shares"):
        quantile_split(np.arange(10), valid=0.5, test=0.5)


def test_split_of_a_query_table() -> None:
    queries = small_dataset().queries
    assert split_of(queries) == TimeSplit(valid_from_ms=3000, test_from_ms=4000)
    assert split_of(rows_of(queries, "train")) == TimeSplit(valid_from_ms=2001, test_from_ms=2001)


def test_rows_of_and_before() -> None:
    queries = small_dataset().queries
    assert rows_of(queries, "valid").column("query_id").to_pylist() == ["q3"]
    assert before(queries, 3000).column("query_id").to_pylist() == ["q1", "q2"]
    assert len(before(pa.table({"timestamp": pa.array([], TIMESTAMP)}), 5)) == 0
    with pytest.raises(ValueError, match="train, valid, test"):
        rows_of(queries, "dev")


def test_valid_may_not_start_after_test() -> None:
    with pytest.raises(ValueError, match="after test"):
        TimeSplit(valid_from_ms=2, test_from_ms=1)
