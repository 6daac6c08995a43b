import random

import pytest

from services.consul_query import next_index, pause_s


@pytest.mark.parametrize(
    ("known", "answered", "expected"),
    [(0, 7, 7), (7, 7, 7), (7, 9, 9), (9, 7, 0), (0, 0, 1), (5, 0, 0)],
    ids=["first", "same", "news", "history lost", "never blocks", "emptied"],
)
def test_the_index_starts_anew_where_it_goes_back(known: int, answered: int, expected: int) -> None:
    assert next_index(known, answered) == expected


def test_pauses_are_chance_and_grow_to_a_cap() -> None:
    rng = random.Random(1)
    longest = [max(pause_s(failures, rng) for _ in range(500)) for failures in (0, 3, 1000)]
    assert 0.09 < longest[0] <= 0.1
    assert 0.7 < longest[1] <= 0.8
    assert 2.7 < longest[2] <= 3.0
