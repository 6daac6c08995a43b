import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.candidates import Candidates
from shards.catalogue import answer, best_first, known_rows
from shards.errors import InvalidInput
from shards.forward_index import ForwardIndex

ITEMS = ForwardIndex(pa.table({"item_id": ["a", "b", "c"], "title": ["Ay", None, "Sea"]}))


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 2.0, np.inf]), max_size=30), st.integers(1, 40))
def test_the_best_are_those_of_a_stable_sort(scores: list[float], keep: int) -> None:
    expected = sorted(range(len(scores)), key=lambda i: -scores[i])[:keep]
    assert best_first(np.array(scores, np.float32), keep).tolist() == expected


def test_an_answer_has_attributes_of_the_first_items_only() -> None:
    found = answer(ITEMS, np.array([2, 1, 0]), {"score": np.array([3, 2, 1], np.float32)}, ("title",), 2)
    assert found.item_ids == ("c", "b", "a")
    assert found.attributes == {"title": ("Sea", "")}


@pytest.mark.parametrize("rows", [[], [0]])
def test_an_unknown_attribute_is_refused_however_little_was_found(rows: list[int]) -> None:
    scores = {"score": np.zeros(len(rows), np.float32)}
    with pytest.raises(InvalidInput, match=r"attributes\[0\]"):
        answer(ITEMS, np.array(rows, np.int64), scores, ("size",), 1)


def test_unknown_candidates_leave_with_their_columns() -> None:
    candidates = Candidates(item_ids=("x", "c", "y", "a"), columns={"rank": np.arange(4, dtype=np.float32)})
    rows, known = known_rows(ITEMS, candidates)
    assert rows.tolist() == [2, 0]
    assert known.item_ids == ("c", "a")
    assert known.columns["rank"].tolist() == [1, 3]
