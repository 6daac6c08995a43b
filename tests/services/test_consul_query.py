import pytest

from services.consul_query import next_index


@pytest.mark.parametrize(
    ("known", "answered", "expected"),
    [(0, 7, 7), (7, 7, 7), (7, 9, 9), (9, 7, 0), (0, 0, 1), (5, 0, 0)],
    ids=["first", "same", "news", "history lost", "never blocks", "emptied"],
)
def test_the_index_starts_anew_where_it_goes_back(known: int, answered: int, expected: int) -> None:
    assert next_index(known, answered) == expected
