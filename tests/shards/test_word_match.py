"""How the words of queries and titles agree."""

import math

import numpy as np
import pytest

from shards.cross_kinds import MATCH_MEASURES
from shards.word_match import item_words

TITLES = ["RED MUG", "red spotty mug in red", "Spotty Bunting", "mug", ""]
HELD = item_words(TITLES)
ALL = np.arange(len(TITLES))


def measure(query: str, of: str) -> list[float]:
    found = HELD.measures(query, ALL)
    assert found.keys() == set(MATCH_MEASURES)
    return [round(float(value), 4) for value in found[of]]


@pytest.mark.parametrize(
    ("query", "near", "exact"),
    [
        ("red mug", [1, 1, 0, 0.5, 0], [1, 1, 0, 0.5, 0]),
        ("MUG, Réd!", [1, 1, 0, 0.5, 0], [1, 1, 0, 0.5, 0]),
        ("sptoty", [0, 1, 1, 0, 0], [0] * 5),
        ("buntings", [0, 0, 1, 0, 0], [0] * 5),
        ("redmug", [1, 1, 0, 0.5, 0], [1, 1, 0, 0.5, 0]),
        ("mgu", [0] * 5, [0] * 5),
        ("in", [0] * 5, [0] * 5),
        ("", [0] * 5, [0] * 5),
    ],
)
def test_words_match_alike_misspelt_inflected_and_joined(
    query: str, near: list[float], exact: list[float]
) -> None:
    assert measure(query, "query_share") == near
    assert measure(query, "exact_share") == exact


def test_what_the_query_leaves_of_the_title() -> None:
    assert measure("mug", "item_share") == [0.5, round(1 / 3, 4), 0, 1, 0]
    assert measure("mug", "item_words") == [round(math.log(n), 4) for n in (2, 3, 2, 1, 1)]


def test_how_common_what_is_named_is_among_the_words_of_the_title() -> None:
    # Three items hold "mug", two "red" and "spotty", one "bunting".
    assert measure("mug", "commonest_place") == [0, 0, 2, 0, 0]
    assert measure("red", "commonest_place") == [1, 1, 2, 1, 0]
    assert measure("spotty bunting", "commonest_place") == [2, 1, 0, 1, 0]
    assert measure("spotty bunting", "rarest_place") == [2, 1, 1, 1, 0]


def test_places_of_the_first_two_words() -> None:
    # "in" is not read, and the second "red" is the first one again.
    for query, first, second in (
        ("mug red bunting", [1, 2, -1, 0, -1], [0, 0, -1, -1, -1]),
        ("sptoty", [-1, 1, 0, -1, -1], [-1] * 5),
        ("redmug", [0, 0, -1, -1, -1], [1, 2, -1, 0, -1]),
        ("", [-1] * 5, [-1] * 5),
    ):
        assert [places.tolist() for places in HELD.places(query, ALL)] == [first, second]
    alike = item_words(["lights light"])
    assert [places.tolist() for places in alike.places("light lights", np.arange(1))] == [[1], [0]]


def test_what_is_alike_for_all_items() -> None:
    assert measure("red bunting zebra", "query_words") == [round(math.log(4), 4)] * 5
    assert measure("red bunting", "holders") == [round(math.log(2), 4)] * 5
    assert measure("red zebra", "holders") == [0.0] * 5


def test_words_of_a_history() -> None:
    mug, red, bunting = (math.log(6 / (1 + holders)) for holders in (3, 2, 1))
    found = HELD.named_by(np.array([0, 3, 3]), ALL)
    expected = [
        (mug + red / 2) / (mug + red),
        (mug + red / 2) / (mug + 2 * red),
        0.0,
        1.0,
        0.0,
    ]
    assert found == pytest.approx(expected)
    assert bunting > red
    assert not HELD.named_by(np.array([], np.int64), ALL).any()


def test_long_texts_and_numbers_cost_no_more_than_others() -> None:
    held = item_words([" ".join(f"word{number}" for number in range(900)), "2010", "2011"])
    assert held.ids_NL.shape == (3, 32)
    assert held.measures("2010", np.arange(3))["query_share"].tolist() == [0, 1, 0]
    many = " ".join(f"word{number} other{number}" for number in range(40))
    found = held.measures(f"{many} 2010", np.arange(3))
    assert found["exact_share"] == pytest.approx([32 / 81, 1 / 81, 0])
    assert found["query_share"] == pytest.approx([40 / 81, 1 / 81, 0]), "word32 may be word3"


def test_features_and_bundles_of_equal_texts_share_them() -> None:
    assert item_words(list(TITLES)) is HELD
    assert item_words([*TITLES, "pot"]) is not HELD


def test_items_without_words() -> None:
    found = item_words([]).measures("red", np.array([], np.int64))
    assert all(len(values) == 0 for values in found.values())
    assert item_words(["", "x"]).measures("red", np.arange(2))["query_share"].tolist() == [0, 0]
