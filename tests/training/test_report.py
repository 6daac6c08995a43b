import json
import math

import numpy as np
import pytest

from training.evaluation.report import (
    DEPTH,
    Ranks,
    as_json,
    compare,
    figures,
    rank_of,
    sample_rows,
    summarise,
)


def ranks(*by_query: int, ranking: str = "hybrid") -> Ranks:
    """Return the ranks of one ranking; users of even queries have a history."""
    size = len(by_query)
    return Ranks(
        query_ids=tuple(f"q{i}" for i in range(size)),
        with_history=np.arange(size) % 2 == 0,
        by_ranking={ranking: np.array(by_query, np.int64)},
    )


def test_rank_of() -> None:
    assert rank_of(("a", "b"), "b") == 2
    assert rank_of(("a", "b"), "c") == 0
    long = tuple(str(i) for i in range(DEPTH + 1))
    assert rank_of(long, str(DEPTH - 1)) == DEPTH
    assert rank_of(long, str(DEPTH)) == 0


def test_figures_by_hand() -> None:
    found = figures(np.array([1, 2, 11, 0]))
    assert found.queries == 4
    assert found.recall_10 == 0.5
    assert found.recall_100 == 0.75
    assert found.mrr_10 == pytest.approx((1 + 1 / 2) / 4)
    assert found.ndcg_10 == pytest.approx((1 + 1 / math.log2(3)) / 4)
    spread = np.std([1, 1 / math.log2(3), 0, 0])
    assert found.ndcg_10_error == pytest.approx(1.96 * spread / 2)


def test_groups_are_told_apart() -> None:
    (row,) = summarise(ranks(1, 0, 1, 0, 1))
    assert (row.with_history.queries, row.without_history.queries) == (3, 2)
    assert (row.with_history.recall_10, row.without_history.recall_10) == (1, 0)
    assert row.overall.recall_10 == pytest.approx(0.6)


def test_a_group_of_nobody_is_null_in_json() -> None:
    (plain,) = as_json(summarise(ranks(1)))
    assert json.loads(json.dumps(plain, allow_nan=False))["without_history"]["ndcg_10"] is None


def test_equal_runs_do_not_differ() -> None:
    (difference,) = compare(ranks(1, 5, 0), ranks(1, 5, 0))
    assert (difference.largest_figure, difference.moved, difference.moved_far) == (0, 0, 0)


def test_differences_are_counted_per_query() -> None:
    (difference,) = compare(ranks(1, 10, 0, 7), ranks(1, 11, 50, 7))
    assert difference.moved == 0.5
    assert difference.moved_far == 0.25
    # Recall@10 loses one of four, Recall@100 gains one.
    assert difference.largest_figure == 0.25


def test_a_drop_out_of_the_last_place_is_one_place() -> None:
    (difference,) = compare(ranks(DEPTH), ranks(0))
    assert (difference.moved, difference.moved_far) == (1, 0)


def test_only_shared_rankings_of_the_same_queries_are_compared() -> None:
    assert compare(ranks(1), ranks(1, ranking="lexical")) == ()
    with pytest.raises(ValueError, match="same queries"):
        compare(ranks(1), ranks(1, 2))


def test_ranks_must_be_aligned() -> None:
    with pytest.raises(ValueError, match="lexical has shape"):
        Ranks(query_ids=("q",), with_history=np.array([True]), by_ranking={"lexical": np.array([1, 2])})


def test_a_sample_is_fixed_and_keeps_the_order() -> None:
    query_ids = tuple(f"q{i}" for i in range(100))
    rows = sample_rows(query_ids, 10)
    assert len(rows) == 10
    assert rows.tolist() == sorted(rows.tolist())
    # The same queries are chosen wherever else they stand.
    backwards = query_ids[::-1]
    assert {backwards[row] for row in sample_rows(backwards, 10)} == {query_ids[row] for row in rows}


@pytest.mark.parametrize("limit", [0, 3, 99])
def test_no_limit_takes_all(limit: int) -> None:
    assert sample_rows(("a", "b", "c"), limit).tolist() == [0, 1, 2]
