import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.id_rows import IdRows

IDS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(st.lists(IDS, unique=True, max_size=60), st.lists(IDS, max_size=30))
def test_rows_are_those_of_a_dictionary(known: list[str], others: list[str]) -> None:
    asked = [*others, *known[::-1], *known]
    found = IdRows(known).of(asked)
    rows = {item: row for row, item in enumerate(known)}
    assert found is not None
    assert found.tolist() == [rows.get(item, -1) for item in asked]


def test_many_ids_that_differ_little() -> None:
    ids = [f"item-{row:09d}" for row in range(50_000)]
    found = IdRows(ids).of([*ids, "item-000050000", "item"])
    assert found is not None
    np.testing.assert_array_equal(found, [*range(50_000), -1, -1])


def test_a_nul_is_left_to_others() -> None:
    assert IdRows(["a", "b"]).of(["a", "b\0"]) is None
    with pytest.raises(ValueError, match="NUL"):
        IdRows(["a\0b", "c"])


def test_an_id_of_ones_is_not_one_that_is_too_long() -> None:
    assert IdRows(["abc"]).of(["x" * 100]) == np.array([-1])


@pytest.mark.parametrize(
    "ids", [[f"{row:07d}" for row in range(20_000)], [str(row) for row in range(20_000)]]
)
def test_ids_that_count_up_lie_apart(ids: list[str]) -> None:
    free = np.flatnonzero(IdRows(ids)._row_S < 0)
    assert np.diff(free).max() < 40, "a look-up goes along the filled slots"
