from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.errors import CorruptBundle, InvalidInput
from shards.forward_index import ForwardIndex
from shards.search_context import FilterClause

TABLE = pa.table(
    {
        "item_id": ["a", "b", "c", "d"],
        "title": ["Red mug", "Blue mug", None, "Bag"],
        "genres": [["Drama", "War"], ["War"], [], None],
        "year": pa.array([1990, 1995, 2000, None], pa.int64()),
        "price": [1.5, 2.0, float("nan"), 4.0],
        "new": [True, False, None, True],
    }
)


@pytest.fixture
def index(tmp_path: Path) -> ForwardIndex:
    pq.write_table(TABLE, tmp_path / "items.parquet")
    return ForwardIndex.open(tmp_path / "items.parquet")


def allowed(index: ForwardIndex, *clauses: FilterClause) -> str:
    mask = index.allowed(clauses)
    return "".join(item for item, keep in zip(index.item_ids, mask, strict=True) if keep)


def test_rows_follow_the_file(index: ForwardIndex) -> None:
    assert len(index) == 4
    assert index.item_ids == ("a", "b", "c", "d")
    assert index.rows_of(["c", "nope", "a"]).tolist() == [2, -1, 0]
    assert index.rows_of([]).tolist() == []


def test_items_are_kept_or_left_out_by_id(index: ForwardIndex) -> None:
    assert allowed(index, FilterClause(attribute="item_id", any_of=("d", "nope", "a"))) == "ad"
    assert allowed(index, FilterClause(attribute="item_id", any_of=("d", "nope"), negate=True)) == "abc"


def test_attributes_are_text(index: ForwardIndex) -> None:
    assert index.attributes([3, 0, 2], ["title", "genres", "year", "price", "new"]) == {
        "title": ("Bag", "Red mug", ""),
        "genres": ("", "Drama, War", ""),
        "year": ("", "1990", "2000"),
        "price": ("4", "1.5", ""),
        "new": ("true", "true", ""),
    }


def test_unknown_attributes_are_all_named(index: ForwardIndex) -> None:
    with pytest.raises(InvalidInput) as caught:
        index.attributes([0], ["x", "title", "y"])
    assert [violation.field for violation in caught.value.violations] == ["attributes[0]", "attributes[2]"]


@pytest.mark.parametrize(
    ("clause", "expected"),
    [
        (FilterClause(attribute="title", any_of=("Bag", "Red mug")), "ad"),
        (FilterClause(attribute="title", any_of=("Bag",), negate=True), "abc"),
        (FilterClause(attribute="genres", any_of=("War",)), "ab"),
        (FilterClause(attribute="genres", any_of=("Drama", "War"), negate=True), "cd"),
        (FilterClause(attribute="item_id", any_of=("b", "zz")), "b"),
        (FilterClause(attribute="year", any_of=("1995",)), "b"),
        (FilterClause(attribute="year", min=1995), "bc"),
        (FilterClause(attribute="year", min=1990, max=1995), "ab"),
        (FilterClause(attribute="year", max=1995, negate=True), "cd"),
        (FilterClause(attribute="price", min=0), "abd"),
        (FilterClause(attribute="price", any_of=("2",), min=0), "b"),
        (FilterClause(attribute="new", any_of=("false",)), "b"),
    ],
)
def test_filters(index: ForwardIndex, clause: FilterClause, expected: str) -> None:
    assert allowed(index, clause) == expected


def test_clauses_join_by_and(index: ForwardIndex) -> None:
    assert allowed(index) == "abcd"
    war, old = FilterClause(attribute="genres", any_of=("War",)), FilterClause(attribute="year", max=1990)
    assert allowed(index, war, old) == "a"


def test_every_bad_clause_is_named(index: ForwardIndex) -> None:
    with pytest.raises(InvalidInput) as caught:
        index.allowed(
            (
                FilterClause(attribute="colour", any_of=("red",)),
                FilterClause(attribute="year", min=1),
                FilterClause(attribute="title", min=1),
                FilterClause(attribute="title"),
            )
        )
    assert [violation.field for violation in caught.value.violations] == [
        "filter.clauses[0].attribute",
        "filter.clauses[2].range",
        "filter.clauses[3].any_of",
    ]


def test_columns_for_the_encoder(index: ForwardIndex) -> None:
    assert index.columns(["year"]) == {"year": [1990, 1995, 2000, None]}
    with pytest.raises(CorruptBundle, match=r"items\.parquet: has no column 'brand'"):
        index.columns(["brand"])


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (pa.table({"title": ["x"]}), "no column 'item_id'"),
        (pa.table({"item_id": ["a", "a"]}), "an item twice"),
        (pa.table({"item_id": ["a", None]}), "must hold texts"),
        (pa.table({"item_id": [1, 2]}), "must hold texts"),
    ],
)
def test_bad_tables_are_refused(tmp_path: Path, table: pa.Table, problem: str) -> None:
    pq.write_table(table, tmp_path / "items.parquet")
    with pytest.raises(CorruptBundle, match=problem) as caught:
        ForwardIndex.open(tmp_path / "items.parquet")
    assert caught.value.file == "items.parquet"


@pytest.mark.parametrize("content", [b"", b"PAR1 not really"])
def test_files_that_are_no_parquet_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "items.parquet").write_bytes(content)
    with pytest.raises(CorruptBundle, match=r"items\.parquet"):
        ForwardIndex.open(tmp_path / "items.parquet")


@pytest.mark.parametrize("odd", ["item-1", "it\0em"])
def test_thousands_of_rows_at_once_are_those_of_single_items(odd: str) -> None:
    ids = [odd, *(f"item-{row}" for row in range(2, 30_001))]
    index = ForwardIndex(pa.table({"item_id": ids}))
    asked = [*ids[::-7], "nowhere", "item-30000"]
    assert len(asked) > 2_000
    single = [index.rows.get(item, -1) for item in asked]
    assert index.rows_of(asked).tolist() == single
