import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.candidates import SCORE, Candidates
from shards.gathering import CATALOGUE_ROW, gather, row_keys


def catalogue(scores: list[float], rows: list[int]) -> Candidates:
    """Return the items of these rows, best first, ties by row, as a partition answers."""
    order = np.lexsort((np.array(rows, np.int64), -np.array(scores, np.float32)))
    return Candidates(
        item_ids=tuple(f"i{rows[i]}" for i in order),
        columns={
            SCORE: np.array(scores, np.float32)[order],
            CATALOGUE_ROW: row_keys(np.array(rows, np.int64)[order]),
        },
        attributes={"title": tuple(f"The i{rows[i]}" for i in order)},
    )


@given(
    scores=st.lists(st.sampled_from((0.5, 1.0, -2.0, 0.0, -0.0, 3e-39)), min_size=1, max_size=60),
    partitions=st.integers(1, 9),
    k=st.integers(1, 70),
    described=st.integers(0, 10),
    seed=st.integers(0, 1000),
)
def test_gathered_is_the_top_of_all(
    scores: list[float], partitions: int, k: int, described: int, seed: int
) -> None:
    owners = np.random.default_rng(seed).integers(0, partitions, len(scores))
    parts = []
    for p in range(partitions):
        rows = np.flatnonzero(owners == p).tolist()
        part = catalogue([scores[row] for row in rows], rows)
        titles = part.attributes["title"][:described]
        columns = {name: column[:k] for name, column in part.columns.items()}
        kept = Candidates(item_ids=part.item_ids[:k], columns=columns, attributes={"title": titles[:k]})
        parts.append(kept)
    whole = catalogue(scores, list(range(len(scores))))
    gathered = gather(parts, k=k, attribute_count=described)
    assert gathered.item_ids == whole.item_ids[:k]
    np.testing.assert_array_equal(gathered.columns[SCORE], whole.columns[SCORE][:k])
    assert gathered.columns.keys() == {SCORE}
    assert gathered.attributes == {"title": whole.attributes["title"][: min(k, described)]}


@pytest.mark.parametrize("first", [0, 2**24, 2_000_000_000])
def test_neighbouring_rows_keep_their_order(first: int) -> None:
    keys = row_keys(np.arange(first, first + 1000, dtype=np.int64))
    assert np.isfinite(keys).all()
    assert (np.diff(keys.view(np.int32)) == 1).all()
    assert (keys[1:] > keys[:-1]).all()


def test_nothing_gathers_to_nothing() -> None:
    assert len(gather([], k=5, attribute_count=5)) == 0
    empty = Candidates(item_ids=(), columns={SCORE: np.empty(0, np.float32)}, attributes={"title": ()})
    assert len(gather([empty, empty], k=5, attribute_count=5)) == 0


def test_scores_that_are_missing_come_last() -> None:
    scored = Candidates(item_ids=("a", "b"), columns={SCORE: np.array([-5, np.nan], np.float32)})
    bare = Candidates(item_ids=("c",))
    assert gather([bare, scored], k=1, attribute_count=0).item_ids == ("a",)
    assert set(gather([bare, scored], k=3, attribute_count=0).item_ids) == {"a", "b", "c"}
