"""What trees are told of the future: counts by hand, and no search judged by trees that saw its visit."""

import numpy as np

from shards.search_context import SearchContext, UserState
from tests.bench.foresight import DAY_MS, REACHES_DAYS, Asked, folds, taken_nearby
from training.evaluation.judgements import Judged

NOW_MS = 1_288_000_000_000


def asked(user_id: str, now_ms: int, relevant: str = "a") -> Asked:
    context = SearchContext(user=UserState(user_id=user_id), query="bag", now_ms=now_ms)
    return Asked(
        judged=Judged(query_id=f"{user_id}-{now_ms}", context=context, relevant=relevant),
        item_ids=("a", "b"),
        columns={},
    )


def test_takers_before_and_after_are_counted_without_those_of_the_moment() -> None:
    hour = DAY_MS // 24
    days = np.array([-2 * DAY_MS, -hour, 0, hour, 2 * DAY_MS, 6 * DAY_MS, 40 * DAY_MS])
    item_E, time_E = np.array([1, 1, 1, 1, 1, 0, 1]), NOW_MS + days
    counts_NK = taken_nearby(item_E, time_E, np.array([0, 1]), np.array([NOW_MS, NOW_MS]))
    reaches = len(REACHES_DAYS)
    assert REACHES_DAYS == (0.125, 0.5, 1.0, 3.0, 7.0, 30.0)
    assert counts_NK[0].tolist() == [*[0] * reaches, 0, 0, 0, 0, 1, 1]
    assert counts_NK[1].tolist() == [1, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2]


def test_a_visit_is_in_one_fold_and_what_found_nothing_teaches_nothing() -> None:
    queries = [asked(f"user {n // 3}", NOW_MS + n // 3, "a" if n % 3 else "not found") for n in range(60)]
    judged: list[int] = []
    for train, test in folds(queries):
        assert {queries[q].visit for q in train}.isdisjoint(queries[q].visit for q in test)
        assert all(queries[q].judged.relevant == "a" for q in train)
        judged += test
    assert sorted(judged) == list(range(60))
