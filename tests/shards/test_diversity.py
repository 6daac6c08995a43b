from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.candidates import Candidates
from shards.diversity import PLACE, SIMILARITY, AttributeQuota, Diversity, diversified


def found(count: int) -> Candidates:
    item_ids = tuple("abcdefghijklmnopqrstuvwxyz"[:count])
    return Candidates(item_ids=item_ids, columns={"score": np.linspace(1, 0, count, dtype=np.float32)})


def order(texts: list[str], diversity: Diversity) -> str:
    candidates = found(len(texts))
    described = {i: {"brand": text} for i, text in zip(candidates.item_ids, texts, strict=True)}
    return "".join(diversified(candidates, described, diversity, size=99).item_ids)


def quota(at_most: int, within: int = 10, *, each: bool = False) -> Diversity:
    return Diversity(quotas=(AttributeQuota(attribute="brand", at_most=at_most, within=within, each=each),))


def test_relevance_alone_changes_nothing() -> None:
    assert order(["x"] * 4, Diversity(relevance=1.0, attributes=("brand",))) == "abcd"


def test_what_is_like_the_items_above_falls_back() -> None:
    # r = 1, .75, .5, .25: halved, b is .375 - .5 below c's .25 and d's .125.
    mmr = Diversity(relevance=0.5, attributes=("brand",))
    assert order(["red mug", "red mug", "tin sign", "oak box"], mmr) == "acdb"


def test_two_attributes_count_half_each() -> None:
    texts = {"a": {"x": "1", "y": "2"}, "b": {"x": "1", "y": "3"}, "c": {"x": "4"}}
    mmr = Diversity(relevance=0.0, attributes=("x", "y"))
    answer = diversified(found(3), texts, mmr, size=3)
    assert answer.item_ids == ("a", "c", "b")
    np.testing.assert_array_equal(answer.columns[SIMILARITY], np.array([0, 0, 0.5], np.float32))
    np.testing.assert_array_equal(answer.columns[PLACE], np.array([1, 3, 2], np.float32))


def test_a_quota_lets_others_pass_and_ends_with_its_places() -> None:
    assert order(list("xxxyzx"), quota(1, within=3)) == "adebcf"


def test_a_quota_gives_way_where_nothing_else_is_left() -> None:
    assert order(list("xxxy"), quota(1)) == "adbc"


def test_an_item_without_the_attribute_is_not_counted() -> None:
    assert order(["", "", "x", "x"], quota(1)) == "abcd"


@pytest.mark.parametrize(("each", "expected"), [(False, "abc"), (True, "acb")])
def test_a_list_counts_as_one_value_or_each_of_it(each: bool, expected: str) -> None:
    assert order(["Drama, War", "War", "Comedy"], quota(1, each=each)) == expected


def test_items_behind_those_looked_at_keep_their_places() -> None:
    mmr = Diversity(relevance=0.0, attributes=("brand",), candidates=3)
    assert order(list("xxyzz"), mmr) == "acbde"


def test_a_shorter_page_is_the_first_of_a_longer_one() -> None:
    texts = {"a": {"brand": "x"}, "b": {"brand": "x"}, "c": {"brand": "y"}, "d": {"brand": "z"}}
    mmr = Diversity(relevance=0.0, attributes=("brand",))
    assert diversified(found(4), texts, mmr, size=2).item_ids == ("a", "c", "b", "d")
    assert diversified(found(4), texts, mmr, size=4).item_ids == ("a", "c", "d", "b")


def test_nothing_is_nothing() -> None:
    assert len(diversified(found(0), {}, quota(1), size=3)) == 0


@given(st.lists(st.sampled_from(["", "x", "y", "x, y"]), max_size=12), st.floats(0, 1), st.integers(1, 4))
def test_every_item_stays_and_quotas_hold_while_they_can(
    brands: list[str], relevance: float, at_most: int
) -> None:
    diversity = Diversity(
        relevance=relevance,
        attributes=("brand",),
        quotas=(AttributeQuota(attribute="brand", at_most=at_most, within=5),),
    )
    result = order(brands, diversity)
    assert sorted(result) == list(found(len(brands)).item_ids)
    assert result == order(brands, diversity)
    of = dict(zip(found(len(brands)).item_ids, brands, strict=True))
    kept = [of[item_id] for item_id in result]
    for place in range(min(5, len(kept))):
        above = Counter(kept[:place])
        could = [brand for brand in kept[place:] if not brand or above[brand] < at_most]
        assert not could or kept[place] in could
