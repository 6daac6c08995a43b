import math
import time
from dataclasses import replace
from typing import Any, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.candidates import Candidates
from shards.cross_kinds import (
    ChannelColumn,
    ExactId,
    HistoryCount,
    HistoryGap,
    HistoryRecency,
    HistoryShare,
    HistorySize,
    HistoryWords,
    ItemNumber,
    NgramOverlap,
    QueryOverlap,
    QueryTakes,
    ReciprocalRank,
    WordMatch,
    WordPlaces,
)
from shards.feature_encoder import RequestEncoder
from shards.feature_kinds import (
    Categories,
    Category,
    HashedId,
    HistoryAges,
    HistoryCategories,
    HistoryCategory,
    HistoryItems,
    ItemId,
    ItemRows,
    Ngrams,
    Number,
    Quantile,
    Tokens,
)
from shards.features import Feature, FeatureSpec
from shards.search_context import History, SearchContext, UserState
from shards.tokenizer import UNKNOWN, Tokenizer

DAY_MS = 86_400_000
NOW_MS = 1_283_342_400_000  # 2010-09-01 12:00 UTC, a Wednesday.
COLUMNS: dict[str, list[object]] = {
    "item_id": ["a1", "b2", "c3", "A1"],
    "title": ["red mug", "blue mug mug", None, ""],
    "genres": [["Drama", "War"], ["?", "War"], None, []],
    "price": [1.0, None, float("nan"), 1e300],
    "group": ["y", "x", None, "z"],
    "takes": [
        [{"text": "red mug", "count": 3.0}, {"text": "red", "count": 1.0}],
        [{"text": "mug", "count": 2.0}, {"text": "mug", "count": float("nan")}, {"text": None, "count": 1}],
        None,
        [{"text": "red mug", "count": 1}, "red mug", {"count": "many"}],
    ],
    "near": [["b2", "gone", "a1", "c3"], ["A1"], None, []],
}
ROWS = {str(item): row for row, item in enumerate(COLUMNS["item_id"])}
TOKENIZER = Tokenizer.train(["red mug", "blue mug", "red bag"], vocab_size=60)
SPEC = FeatureSpec(
    features=(
        Tokens(name="query_tokens", source="query", max_len=4),
        Ngrams(name="query_ngrams", source="query", buckets=100, max_len=6),
        Category(name="country", source="user.country", vocabulary=("FR", "GB")),
        Categories(name="likes", source="user.likes", vocabulary=("War", "Drama"), max_len=3),
        Number(name="age", source="user.age", mean=40.0, std=10.0),
        Number(name="visits", source="context.visits", log1p=True),
        HashedId(name="visitor", source="user_id", buckets=50),
        Category(name="weekday", source="now.weekday", vocabulary=tuple("0123456")),
        HistoryItems(name="history", max_len=3),
        HistoryAges(name="history_ages", max_len=3, boundaries_days=(1.0, 7.0)),
        HistoryItems(name="bought", max_len=2, actions=("purchase",)),
        HistoryCategory(name="group", source="item.group", vocabulary=("x", "y"), max_len=3),
        HistoryCategories(name="groups", source="item.group", vocabulary=("x", "y"), max_len=3),
        HistoryCategory(
            name="bought_group",
            source="item.group",
            vocabulary=("x", "y"),
            max_len=3,
            actions=("purchase",),
        ),
        ItemId(name="item"),
        Tokens(name="title_tokens", source="item.title", max_len=4),
        Categories(name="genres", source="item.genres", vocabulary=("War", "Drama"), max_len=2),
        Number(name="price", source="item.price"),
        Quantile(name="price_bucket", source="item.price", boundaries=(0.5, 1.0)),
        ItemRows(name="near", source="item.near", max_len=2),
        ChannelColumn(name="bm25", column="lexical.score", missing=-1.0, mean=2.0, std=2.0),
        ReciprocalRank(name="bm25_rank", column="lexical.rank"),
        HistoryCount(name="count"),
        HistoryCount(name="bought_count", actions=("purchase",)),
        HistoryRecency(name="recency", half_life_days=2.0),
        HistoryShare(name="share"),
        HistorySize(name="events", of="events"),
        HistorySize(name="bought_visits", of="visits", actions=("purchase",)),
        HistorySize(name="idle", of="idle_days", actions=("view",)),
        QueryOverlap(name="overlap", source="item.title"),
        NgramOverlap(name="ngram_overlap", source="item.title"),
        ExactId(name="exact"),
        ItemNumber(name="cross_price", source="item.price"),
        HistoryGap(name="gap", source="item.price", log1p=True),
        QueryTakes(name="takes", source="item.takes", of="count"),
        QueryTakes(name="query_share", source="item.takes", of="query_share"),
        QueryTakes(name="item_share", source="item.takes", of="item_share"),
        QueryTakes(name="words_share", source="item.takes", of="words_share"),
        QueryTakes(name="rarest_share", source="item.takes", of="rarest_word_share"),
        WordMatch(name="named", source="item.title", of="query_share"),
        WordMatch(name="commonest", source="item.title", of="commonest_place"),
        WordPlaces(name="places", source="item.title", lifts=((), (), (-1.0, 0.5, 0.25, -1.0))),
        HistoryWords(name="own_words", source="item.title"),
        HistoryWords(name="bought_words", source="item.title", actions=("purchase",)),
    )
)
ENCODER = RequestEncoder(SPEC, TOKENIZER, ROWS, COLUMNS)


def context(**user: str | float | tuple[str, ...]) -> SearchContext:
    history = History(
        item_ids=("a1", "gone", "b2", "a1", "c3"),
        actions=("purchase", "purchase", "view", "view", "purchase"),
        timestamps_ms=tuple(NOW_MS - days * DAY_MS for days in (30, 20, 7, 4, 0)),
    )
    return SearchContext(query="Red mug", user=UserState(features=user, history=history), now_ms=NOW_MS)


def cross(asked: SearchContext, name: str, **columns: list[float]) -> list[float]:
    candidates = Candidates(
        item_ids=tuple(ROWS),
        columns={key.replace("_", "."): np.array(column, np.float32) for key, column in columns.items()},
    )
    values_CK = ENCODER.encode_cross(asked, np.arange(4), candidates)
    assert values_CK.dtype == np.float32
    assert values_CK.shape == (4, len(SPEC.cross_names))
    return [round(float(value), 6) for value in values_CK[:, SPEC.cross_names.index(name)]]


def test_spec_survives_json() -> None:
    again = FeatureSpec.from_bytes(SPEC.to_bytes())
    assert again == SPEC
    assert again.to_bytes() == SPEC.to_bytes()
    assert again.hash(TOKENIZER) == SPEC.hash(TOKENIZER)


def test_ints_and_lists_hash_as_they_read_back() -> None:
    boundaries: Any = [1, 2]
    ages = HistoryAges(name="h", max_len=2, boundaries_days=boundaries)
    loose = FeatureSpec(features=(Number(name="n", source="user.n", mean=1), ages))
    assert FeatureSpec.from_bytes(loose.to_bytes()).hash() == loose.hash()


def test_hash_tells_specs_and_tokenisers_apart() -> None:
    other_tokenizer = Tokenizer.train(["something else"], vocab_size=30)
    swapped = FeatureSpec(features=(SPEC.features[1], SPEC.features[0], *SPEC.features[2:]))
    hashes = {SPEC.hash(), SPEC.hash(TOKENIZER), SPEC.hash(other_tokenizer), swapped.hash(TOKENIZER)}
    assert len(hashes) == 4


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (b"[]", "must hold one list"),
        (b'{"features": 1}', "is not a list"),
        (b'{"features": [{"kind": "Magic"}]}', r"features\[0\] has no known kind"),
        (b'{"features": [{"kind": "ItemId"}]}', r"features\[0\] has no field 'name'"),
        (b'{"features": [{"kind": "ItemId", "name": "x", "y": 1}]}', "unknown field 'y'"),
        (b'{"features": [{"kind": "ItemId", "name": 3}]}', r"features\[0\].name is not a str"),
        (
            b'{"features": [{"kind": "ItemId", "name": "Bad Name"}]}',
            r"features\[0\]: feature name 'Bad Name'",
        ),
        (b'{"features": [], "features": []}', "a key occurs twice"),
        (b'{"features": NaN}', "NaN"),
        (b"\xff", "utf-8"),
    ],
)
def test_bad_documents_say_where(document: bytes, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        FeatureSpec.from_bytes(document)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: Tokens(name="x", source="body", max_len=3), "source 'body'"),
        (lambda: Tokens(name="x", source="now.second", max_len=3), "source 'now.second'"),
        (lambda: Tokens(name="x", source="user.", max_len=3), "source 'user.'"),
        (lambda: Tokens(name="x", source="query", max_len=0), "max_len must be at least 1"),
        (lambda: Ngrams(name="x", source="query", buckets=0, max_len=3), "buckets must be at least 1"),
        (lambda: Category(name="x", source="query", vocabulary=("a", "a")), "a value twice"),
        (lambda: Number(name="x", source="query", std=0.0), "std above 0"),
        (lambda: Number(name="x", source="query", mean=math.nan), "mean must be finite"),
        (lambda: HistoryAges(name="x", max_len=2, boundaries_days=(2.0, 1.0)), "must rise"),
        (lambda: HistoryRecency(name="x", half_life_days=0.0), "half_life_days"),
        (lambda: QueryOverlap(name="x", source="query"), "must be item"),
        (lambda: ItemRows(name="x", source="query", max_len=2), "must be item"),
        (
            lambda: HistoryCategory(name="x", source="now.hour", vocabulary=(), max_len=1),
            "must be item",
        ),
        (lambda: Quantile(name="x", source="query", buckets=1), "buckets must be at least 2"),
        (lambda: Quantile(name="x", source="query", boundaries=(1.0, 1.0)), "boundaries must rise"),
        (lambda: ChannelColumn(name="x", column="y", missing=math.nan), "missing must be finite"),
        (lambda: FeatureSpec(features=(ItemId(name="x"), ItemId(name="x"))), "'x' occurs twice"),
    ],
)
def test_definitions_are_checked(make: object, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        make()  # type: ignore[operator]


def test_request_features() -> None:
    arrays = ENCODER.encode_request(context(country="GB", likes=("War", "?", "Drama"), age=50.0))
    assert arrays["query_tokens"].tolist() == [TOKENIZER.encode("red mug", 4).tolist()]
    assert arrays["country"].tolist() == [2]
    assert arrays["likes"].tolist() == [[1, 2, 0]]
    assert arrays["age"].tolist() == [1.0]
    assert arrays["visits"].tolist() == [0.0]
    assert arrays["weekday"].tolist() == [3]
    assert {str(array.dtype) for array in arrays.values()} == {"int64", "float32"}
    assert arrays.keys() == {feature.name for feature in SPEC.on("request")}


def test_history_is_of_known_items_newest_last() -> None:
    arrays = ENCODER.encode_request(context())
    assert arrays["history"].tolist() == [[2, 1, 3]]
    assert arrays["history_ages"].tolist() == [[3, 2, 1]]
    assert arrays["bought"].tolist() == [[1, 3]]


def test_a_history_has_the_value_that_most_of_its_items_have() -> None:
    arrays = ENCODER.encode_request(context())
    # The newest three known items are b2, a1 and c3, of which x, y and none; only a1 and c3 were bought.
    assert arrays["group"].tolist() == [1]
    assert arrays["bought_group"].tolist() == [2]
    assert arrays["groups"].tolist() == [[1, 2, 0]]
    assert SPEC.history_columns == ("group",)
    with pytest.raises(ValueError, match="item column of 'group' has not 4 values"):
        RequestEncoder(SPEC, TOKENIZER, ROWS, COLUMNS | {"group": ["x"]})


def test_a_stranger_with_nothing_to_say() -> None:
    arrays = ENCODER.encode_request(SearchContext(now_ms=NOW_MS))
    assert not any(array.any() for name, array in arrays.items() if name != "weekday")


def test_item_features() -> None:
    arrays = ENCODER.encode_items(COLUMNS)
    assert arrays["item"].tolist() == [1, 2, 3, 4]
    assert arrays["genres"].tolist() == [[2, 1], [1, 0], [0, 0], [0, 0]]
    assert arrays["price"].tolist() == [1.0, 0.0, 0.0, 1000.0]
    assert arrays["price_bucket"].tolist() == [3, 0, 0, 3]
    assert arrays["near"].tolist() == [[2, 1], [4, 0], [0, 0], [0, 0]]
    assert arrays["title_tokens"].any(axis=1).tolist() == [True, True, False, False]
    assert ENCODER.encode_items(COLUMNS | {"item_id": ["new", "b2", "", None]})["item"].tolist() == [
        0,
        2,
        0,
        0,
    ]


def test_missing_columns_and_tokenisers_are_named() -> None:
    with pytest.raises(ValueError, match="item column 'title' is missing"):
        ENCODER.encode_items({"item_id": ["a1"]})
    with pytest.raises(ValueError, match="item column 'group' is missing"):
        RequestEncoder(SPEC, TOKENIZER, ROWS)
    with pytest.raises(ValueError, match="item column 'title' is missing"):
        RequestEncoder(SPEC, TOKENIZER, ROWS, {"group": COLUMNS["group"]})
    with pytest.raises(ValueError, match="'query_tokens' needs a tokeniser"):
        RequestEncoder(SPEC, None, ROWS, COLUMNS)
    with pytest.raises(ValueError, match="has not 4 values"):
        RequestEncoder(SPEC, TOKENIZER, ROWS, COLUMNS | {"title": ["one"]})


def test_channel_columns() -> None:
    nan = math.nan
    assert cross(context(), "bm25", lexical_score=[2, 6, nan, -2]) == [0.0, 2.0, -1.0, -2.0]
    assert cross(context(), "bm25") == [-1.0] * 4
    assert cross(context(), "bm25_rank", lexical_rank=[1, 4, nan, 0]) == [1.0, 0.25, 0.0, 0.0]
    assert cross(context(), "bm25_rank") == [0.0] * 4


def test_history_on_the_candidate() -> None:
    log2, log3 = round(math.log(2), 6), round(math.log(3), 6)
    assert cross(context(), "count") == [log3, log2, log2, 0.0]
    assert cross(context(), "bought_count") == [log2, 0.0, log2, 0.0]
    assert cross(context(), "recency") == [0.25, round(0.5**3.5, 6), 1.0, 0.0]
    assert cross(SearchContext(now_ms=NOW_MS), "recency") == [0.0] * 4
    assert cross(SearchContext(now_ms=NOW_MS), "count") == [0.0] * 4


def test_visits_are_moments_of_the_history() -> None:
    # a1 in two visits of four, b2 and c3 in one each; "gone" is no item.
    assert cross(context(), "share") == [0.4, 0.2, 0.2, 0.0]
    assert cross(context(), "events") == [round(math.log(5), 6)] * 4
    assert cross(context(), "bought_visits") == [round(math.log(3), 6)] * 4
    assert cross(context(), "idle") == [round(math.log(5), 6)] * 4
    nobody = SearchContext(now_ms=NOW_MS)
    for name in ("share", "events", "bought_visits", "idle", "gap"):
        assert cross(nobody, name) == [0.0] * 4


def test_items_of_one_moment_are_one_visit() -> None:
    basket = History(("a1", "b2", "a1"), ("purchase",) * 3, (NOW_MS - DAY_MS,) * 3)
    asked = SearchContext(user=UserState(history=basket), now_ms=NOW_MS)
    assert cross(asked, "share") == [0.5, 0.5, 0.0, 0.0]
    assert cross(asked, "bought_visits") == [round(math.log(2), 6)] * 4


def test_how_far_a_number_is_from_the_users_own() -> None:
    own = math.log(2) * 2 / 4
    found = cross(context(), "gap")
    assert found[:3] == [round(math.log(2) - own, 6), round(-own, 6), round(-own, 6)]
    assert found[3] > 600


@pytest.mark.parametrize(("days", "counted"), [(None, 3), (7.0, 2), (1.0, 1), (1 / 24, 0)])
def test_windows_of_a_history_count_what_is_young_enough(days: float | None, counted: int) -> None:
    day_ms = 86_400_000
    ages_ms = (30 * day_ms, 7 * day_ms, day_ms // 2)
    history = History(("a1",) * 3, ("view", "purchase", "view"), tuple(40 * day_ms - age for age in ages_ms))
    spec = FeatureSpec(
        features=(
            HistoryCount(name="count", within_days=days),
            HistorySize(name="events", of="events", within_days=days),
        )
    )
    context = SearchContext(user=UserState(history=history), now_ms=40 * day_ms)
    cross_CK = RequestEncoder(spec, None, {"a1": 0}).encode_cross(
        context, np.array([0]), Candidates(item_ids=("a1",))
    )
    np.testing.assert_allclose(cross_CK, np.log1p([[counted, counted]]), rtol=1e-6)


@pytest.mark.parametrize("days", [0.0, -1.0, float("nan")])
def test_a_window_that_is_none_is_refused(days: float) -> None:
    with pytest.raises(ValueError, match="within_days must be above 0"):
        HistoryCount(name="count", within_days=days)


def test_what_the_query_led_to_before() -> None:
    def share(count: float, total: float) -> float:
        return round(math.log((count + 0.05) / (total + 1) / 0.05) / 2, 6)

    assert cross(context(), "takes") == [round(math.log(4), 6), 0.0, 0.0, round(math.log(2), 6)]
    assert cross(context(), "query_share") == [0.6, 0.0, 0.0, 0.2]
    assert cross(context(), "item_share") == [share(3, 4), share(0, 2), share(0, 0), share(1, 1)]
    of_words = [[share(4, 4), share(3, 4)], [share(0, 2), share(2, 2)], [share(0, 0)] * 2, [share(1, 1)] * 2]
    assert cross(context(), "words_share") == pytest.approx([sum(two) / 2 for two in of_words], abs=2e-6)
    assert cross(context(), "rarest_share") == [min(two) for two in of_words]
    unasked = replace(context(), query="")
    assert cross(unasked, "takes") == cross(unasked, "query_share") == [0.0] * 4


def test_words_of_the_query_and_of_the_history() -> None:
    # "red mug" is asked; two of four items hold "mug", one "red" and "blue" each.
    assert cross(context(), "named") == [1.0, 0.5, 0.0, 0.0]
    assert cross(context(), "commonest") == [0.0, 0.0, 0.0, 0.0]
    mug, red = math.log(5 / 3), math.log(5 / 2)
    # Of the items a1, b2 and c3 one holds "red", one "blue" and two "mug"; b2 was not bought.
    either = round((mug * 2 / 3 + red / 3) / (mug + red), 6)
    assert cross(context(), "own_words") == [either, either, 0.0, 0.0]
    bought = [round(0.5, 6), round(mug / 2 / (mug + red), 6), 0.0, 0.0]
    assert cross(context(), "bought_words") == bought
    assert cross(SearchContext(now_ms=NOW_MS), "own_words") == [0.0] * 4


def test_places_of_words_that_searchers_name() -> None:
    def places(query: str) -> list[float]:
        return cross(SearchContext(query=query, now_ms=NOW_MS), "places")

    # Places 0 and 1 of the two words of "red mug" and of "blue mug mug".
    assert places("red mug") == [0.5, 0.0, 0.0, 0.0]
    assert places("mug red") == [0.25, 0.0, 0.0, 0.0]
    assert places("mug blue pot") == [0.0, 0.25, 0.0, 0.0]
    assert places("mug") == places("") == [0.0] * 4
    for lifts in (((1.0,), ()), ((), (), (0.0, math.inf, 0.0, 0.0))):
        with pytest.raises(ValueError, match=r"lifts\[[02]\] must be [04] finite numbers"):
            WordPlaces(name="places", source="item.title", lifts=lifts)


def test_measures_that_there_are_not() -> None:
    with pytest.raises(ValueError, match="of 'minutes' is none of events, visits, idle_days"):
        HistorySize(name="size", of="minutes")
    with pytest.raises(ValueError, match="of 'minutes' is none of count"):
        QueryTakes(name="takes", source="item.takes", of="minutes")
    with pytest.raises(ValueError, match="of 'minutes' is none of query_share"):
        WordMatch(name="match", source="item.title", of="minutes")


def test_overlap_of_query_and_title() -> None:
    def asked(query: str) -> SearchContext:
        return replace(context(), query=query)

    assert cross(asked("mug RED"), "overlap") == [1.0, 0.5, 0.0, 0.0]
    assert cross(asked("mug mug"), "overlap") == [1.0, 1.0, 0.0, 0.0]
    # What nobody knows matches nothing, not even another unknown.
    assert TOKENIZER.encode("日", 1)[0] == UNKNOWN
    assert cross(asked("日 mug"), "overlap") == [0.5, 0.5, 0.0, 0.0]
    assert cross(asked(""), "overlap") == [0.0] * 4
    assert cross(asked("mug"), "ngram_overlap") == [1.0, 1.0, 0.0, 0.0]
    assert cross(asked("mugs"), "ngram_overlap") == [0.5, 0.5, 0.0, 0.0]
    assert cross(asked(" a1 "), "exact") == [1.0, 0.0, 0.0, 1.0]
    assert cross(asked(""), "exact") == [0.0] * 4


def test_item_numbers_as_cross_features() -> None:
    assert cross(context(), "cross_price") == [1.0, 0.0, 0.0, 1000.0]


def test_candidates_must_be_known() -> None:
    one = Candidates(item_ids=("a1",))
    with pytest.raises(ValueError, match="needs a row"):
        ENCODER.encode_cross(context(), np.array([-1]), one)
    with pytest.raises(ValueError, match="needs a row"):
        ENCODER.encode_cross(context(), np.array([0, 1]), one)
    assert (
        ENCODER.encode_cross(context(), np.array([], dtype=np.int64), Candidates(item_ids=())).shape[0] == 0
    )


RAW = st.one_of(
    st.text(max_size=20),
    st.floats(),
    st.lists(st.text(max_size=5), max_size=4).map(tuple),
)
CONTEXTS = st.builds(
    lambda query, user, features, events, now: SearchContext(
        query=query,
        user=UserState(
            features=user,
            history=History(
                tuple(item for item, _, _ in events),
                tuple(action for _, action, _ in events),
                tuple(sorted(at for _, _, at in events)),
            ),
        ),
        features=features,
        now_ms=now,
    ),
    st.text(st.characters(exclude_categories=()), max_size=30),
    st.dictionaries(st.sampled_from(["country", "likes", "age"]), RAW),
    st.dictionaries(st.sampled_from(["visits"]), RAW),
    st.lists(
        st.tuples(
            st.sampled_from(["a1", "b2", "gone"]),
            st.sampled_from(["purchase", "view"]),
            st.integers(0, 2 * NOW_MS),
        ),
        max_size=8,
    ),
    st.integers(0, 2 * NOW_MS),
)


@given(st.lists(CONTEXTS, max_size=4))
def test_training_batches_equal_single_requests(contexts: list[SearchContext]) -> None:
    batch = ENCODER.encode_requests(contexts)
    for b, one in enumerate(contexts):
        single = ENCODER.encode_request(one)
        assert single.keys() == batch.keys()
        for name, array in single.items():
            assert np.all(np.isfinite(array))
            np.testing.assert_array_equal(batch[name][b], array[0])
            assert batch[name].dtype == array.dtype
    if not contexts:
        assert {len(array) for array in batch.values()} == {0}


@given(CONTEXTS, st.permutations(range(4)), st.lists(st.floats(width=32), min_size=4, max_size=4))
def test_cross_features_do_not_depend_on_the_company(
    asked: SearchContext, order: list[int], scores: list[float]
) -> None:
    ids = tuple(ROWS)
    columns = {name: np.array(scores, np.float32) for name in ("lexical.score", "lexical.rank")}
    candidates = Candidates(item_ids=ids, columns=columns)
    rows = np.arange(4)
    together_CK = ENCODER.encode_cross(asked, rows, candidates)
    assert np.all(np.isfinite(together_CK))
    shuffled_CK = ENCODER.encode_cross(asked, rows[order], candidates.take(np.array(order)))
    np.testing.assert_array_equal(shuffled_CK, together_CK[order])


def test_500_candidates_take_about_a_millisecond() -> None:
    rng = np.random.default_rng(0)
    items = [f"i{i}" for i in range(2_000)]
    titles: list[object] = ["red mug blue bag with a long title of many words"] * 2_000
    columns: dict[str, list[object]] = {
        "item_id": [*items],
        "title": titles,
        "price": [2.0] * 2_000,
        "group": ["x"] * 2_000,
        "takes": [[{"text": "red lunch bag", "count": 2.0}, {"text": "bag", "count": 1.0}]] * 2_000,
    }
    encoder = RequestEncoder(SPEC, TOKENIZER, {item: i for i, item in enumerate(items)}, columns)
    bought = tuple(items[i] for i in rng.integers(0, 2_000, 200))
    history = History(bought, ("purchase",) * 200, tuple(range(NOW_MS - 200, NOW_MS)))
    asked = SearchContext(query="red lunch bag", user=UserState(history=history), now_ms=NOW_MS)
    rows = rng.permutation(2_000)[:500]
    candidates = Candidates(item_ids=tuple(items[row] for row in rows))
    times_s = []
    for _ in range(50):
        started_s = time.perf_counter()
        encoder.encode_cross(asked, rows, candidates)
        times_s.append(time.perf_counter() - started_s)
    # About 0.6 ms on a quiet core; a loop over the candidates would cost tens of ms.
    assert min(times_s) < 0.003


def test_features_are_what_the_union_says() -> None:
    # Every kind is in SPEC, so that no branch goes untested.
    assert {type(feature) for feature in SPEC.features} == set(get_args(Feature))


def test_hashed_ids_need_no_vocabulary() -> None:
    user = HashedId(name="user", source="user_id", buckets=1_000)
    item = HashedId(name="row", source="item.item_id", buckets=1_000)
    encoder = RequestEncoder(FeatureSpec(features=(user, item)), None, ROWS)
    askers = [UserState(user_id=user_id) for user_id in ("", "u1", "u2", "u1")]
    encoded = encoder.encode_requests([SearchContext(user=asker, now_ms=NOW_MS) for asker in askers])
    nobody, one, other, again = encoded["user"].tolist()
    assert nobody == 0
    assert one == again != other
    assert 1 <= min(one, other) <= max(one, other) <= 1_000 == user.cardinality - 1
    ids = encoder.encode_items({"item_id": ["a1", "never seen"]})["row"]
    assert ids.min() >= 1
    assert ids.tolist() == encoder.encode_items({"item_id": ["a1", "never seen"]})["row"].tolist()
