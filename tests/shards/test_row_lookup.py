import pytest

from shards import row_lookup
from shards.row_lookup import RowLookup


@pytest.mark.parametrize("asked", [3, row_lookup._MANY])
@pytest.mark.parametrize("known", [5, row_lookup._LARGE])
@pytest.mark.parametrize("strange", ["nowhere", "a\0b"])
def test_few_and_many_get_the_rows_of_their_ids(asked: int, known: int, strange: str) -> None:
    lookup = RowLookup({f"i{row}": row for row in range(known)})
    item_ids = [*(f"i{n}" for n in range(asked)), strange]
    assert lookup.of(item_ids).tolist() == [*(n if n < known else -1 for n in range(asked)), -1]
    assert len(lookup) == known


def test_an_id_with_a_nul_is_found() -> None:
    lookup = RowLookup({"a\0b": 0} | {f"i{row}": row + 1 for row in range(row_lookup._LARGE)})
    item_ids = ["a\0b"] * row_lookup._MANY
    assert lookup.of(item_ids).tolist() == [0] * row_lookup._MANY
