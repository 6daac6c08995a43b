import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from shards.errors import InvalidInput
from tests.training.small_dataset import small_dataset
from training.datasets import schema
from training.datasets.tables import Dataset, canonical_types, sort_tables, timestamps_ms


def check(table: str, column: str, values: pa.Array | None, *expected: tuple[str, str]) -> None:
    """Replace (or with None drop) one column of a sound dataset and compare the violations."""
    dataset = small_dataset()
    held = dataset.tables()[table]
    if column in held.column_names:
        held = held.drop_columns([column])
    if values is not None:
        held = held.append_column(column, values)
    with pytest.raises(InvalidInput) as caught:
        schema.check(dataclasses.replace(dataset, **{table: held}))
    assert [(v.field, v.description) for v in caught.value.violations] == list(expected)


def test_a_sound_dataset_passes() -> None:
    schema.check(small_dataset())


def test_missing_column() -> None:
    check("items", "title", None, ("items.title", "is missing"))


def test_optional_column_may_be_missing() -> None:
    dataset = small_dataset()
    schema.check(dataclasses.replace(dataset, events=dataset.events.drop_columns(["rating", "session_id"])))


def test_wrong_type() -> None:
    check("users", "user_id", pa.array([1, 2]), ("users.user_id", "is int64, not string"))
    check("events", "timestamp", pa.array([1, 2, 3]), ("events.timestamp", "is int64, not timestamp"))
    check(
        "items",
        "weight",
        pa.array([True] * 3),
        ("items.weight", "is bool, not string, list of strings or number"),
    )


def test_nulls_are_counted_from_the_first_bad_row() -> None:
    check(
        "events",
        "action",
        pa.array(["like", None, None]),
        ("events.action", "has no value in 2 rows, the first is row 1"),
    )


def test_empty_id() -> None:
    check(
        "items", "item_id", pa.array(["a", "b", ""]),
        ("items.item_id", "is empty in 1 row, the first is row 2"),
        ("events.item_id", "is not in items.item_id in 1 row, the first is row 2"),
    )  # fmt: skip


def test_duplicate_ids() -> None:
    check(
        "queries",
        "query_id",
        pa.array(["q1", "q2", "q1", "q2"]),
        ("queries.query_id", "repeats an earlier id in 2 rows, the first is row 2"),
    )


def test_unknown_references() -> None:
    check(
        "events",
        "user_id",
        pa.array(["u1", "stranger", "u2"]),
        ("events.user_id", "is not in users.user_id in 1 row, the first is row 1"),
    )
    check(
        "queries",
        "item_id",
        pa.array(["a", "b", "ghost", "ghost"]),
        ("queries.item_id", "is not in items.item_id in 2 rows, the first is row 2"),
    )


def test_a_query_may_be_empty_or_its_user_unknown_but_not_both() -> None:
    dataset = small_dataset()
    assert dataset.queries.column("query").to_pylist()[3] == ""
    assert dataset.queries.column("user_id").to_pylist()[2] == ""
    check(
        "queries",
        "query",
        pa.array(["mug", "", " ", ""]),
        ("queries.query", "is empty and so is its user_id in 1 row, the first is row 2"),
    )
    check(
        "queries",
        "user_id",
        pa.array(["u1", "u2", None, "u1"]),
        ("queries.user_id", "has no value in 1 row, the first is row 2"),
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_none(bad: float) -> None:
    expected = "is NaN or infinite in 1 row, the first is row 2"
    check("events", "rating", pa.array([1.0, None, bad]), ("events.rating", expected))
    check("items", "weight", pa.array([1.0, None, bad]), ("items.weight", expected))


def test_a_null_inside_a_list() -> None:
    check(
        "items",
        "genres",
        pa.array([["x"], None, ["y", None]]),
        ("items.genres", "lists a null in 1 row, the first is row 2"),
    )


def test_splits_must_follow_each_other_in_time() -> None:
    check(
        "queries",
        "split",
        pa.array(["train", "test", "valid", "test"]),
        ("queries.split", "is test before the last train or valid query in 1 row, the first is row 1"),
    )
    check(
        "queries",
        "split",
        pa.array(["train", "dev", "valid", "test"]),
        ("queries.split", "is none of train, valid, test in 1 row, the first is row 1"),
    )


def test_events_and_queries_take_no_unknown_columns() -> None:
    # A misspelt optional column must not be lost in silence.
    check("events", "ratings", pa.array([1.0, 2.0, 3.0]), ("events.ratings", "is not a column of this table"))


def test_every_problem_is_listed_at_once() -> None:
    dataset = small_dataset()
    broken = Dataset(
        name="broken",
        items=dataset.items.drop_columns(["title"]),
        users=dataset.users,
        events=dataset.events.set_column(3, "action", pa.array(["", "like", "like"])),
        queries=dataset.queries.drop_columns(["split"]),
        queries_are_proxies=True,
    )
    fields = [problem.violation().field for problem in schema.find_problems(broken)]
    assert fields == ["items.title", "events.action", "queries.split"]


def test_canonical_types_keep_rows_and_values() -> None:
    table = pa.table(
        {
            "word": pa.array(["b", "a"], pa.large_string()),
            "kind": pa.array(["x", "x"]).dictionary_encode(),
            "many": pa.array([["p"], None], pa.large_list(pa.large_string())),
            "timestamp": pa.array([1_500_001, 2], pa.timestamp("us")),
            "number": pa.array([1, 2], pa.int16()),
        }
    )
    result = canonical_types(table)
    assert [str(t) for t in result.schema.types] == [
        "string", "string", "list<item: string>", "timestamp[ms, tz=UTC]", "int16",
    ]  # fmt: skip
    assert result.column("word").to_pylist() == ["b", "a"]
    assert result.column("many").to_pylist() == [["p"], None]
    np.testing.assert_array_equal(timestamps_ms(result), [1500, 0])


def test_sorting_goes_by_time_then_id() -> None:
    dataset = small_dataset()
    reverse = dataclasses.replace(dataset, events=dataset.events.take(pa.array([2, 1, 0])))
    assert sort_tables(reverse).events.column("event_id").to_pylist() == ["e1", "e2", "e3"]
