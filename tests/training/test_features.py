"""Fitting a FeatureSpec, and what models learn of it."""

from dataclasses import replace

import numpy as np
import pytest

from shards.candidates import Candidates
from shards.cross_kinds import ChannelColumn, ItemNumber, ReciprocalRank, WordPlaces
from shards.feature_kinds import (
    Categories,
    Category,
    HistoryAges,
    HistoryCategories,
    HistoryItems,
    ItemId,
    ItemRows,
    Ngrams,
    Number,
    Quantile,
    Tokens,
)
from shards.features import Feature, FeatureSpec
from shards.search_context import SearchContext, UserState
from shards.tokenizer import Tokenizer
from training.features import FittingData, fit_spec, model_inputs
from training.models.fields import Field, HistoryField

CONTEXTS = [
    SearchContext(query="mug", user=UserState(features={"country": country, "age": age}), now_ms=0)
    for country, age in [("uk", 20.0)] * 5 + [("fr", 40.0)] * 5 + [("is", 30.0)]
]
COLUMNS: dict[str, list[object]] = {
    "price": [1.0, 3.0, None, float("nan")],
    "genres": [["x", "y"]] * 5 + [["z"], None],
    "title": ["red mug"] * 4,
}
CANDIDATES = [
    Candidates(
        item_ids=("a", "b", "c"),
        columns={"lexical.score": np.array([1.0, 3.0, np.nan], np.float32)},
    )
]
DATA = FittingData(contexts=CONTEXTS, item_columns=COLUMNS, candidates=CANDIDATES)


def test_vocabularies_and_scales_come_from_the_data() -> None:
    spec = fit_spec(
        [
            Category(name="country", source="user.country", vocabulary=()),
            Categories(name="genres", source="item.genres", vocabulary=(), max_len=2),
            Number(name="age", source="user.age"),
            ItemNumber(name="price", source="item.price"),
            ChannelColumn(name="lexical", column="lexical.score"),
            ReciprocalRank(name="rank", column="lexical.rank"),
        ],
        DATA,
    )
    country, genres, age, price, lexical, rank = spec.features
    assert isinstance(country, Category)
    assert country.vocabulary == ("fr", "uk"), "what is met once stays unknown"
    assert isinstance(genres, Categories)
    assert genres.vocabulary == ("x", "y")
    assert isinstance(age, Number)
    assert (age.mean, age.std) == pytest.approx((30.0, np.std([20.0] * 5 + [40.0] * 5 + [30.0])))
    assert isinstance(price, ItemNumber)
    assert (price.mean, price.std) == (2.0, 1.0)
    assert isinstance(lexical, ChannelColumn)
    assert (lexical.mean, lexical.std) == (2.0, 1.0)
    assert lexical.missing == pytest.approx(-0.98), "a missing candidate is as bad as the worst found"
    assert rank == ReciprocalRank(name="rank", column="lexical.rank")


def test_places_of_words_are_learnt_from_what_was_taken() -> None:
    asked = ["mug red"] * 60 + ["red mug"] * 20 + ["red"] * 9 + ["big mug"] * 9 + ["mug red"]
    rows = [0] * 80 + [0] * 9 + [2] * 9 + [-1]
    columns: dict[str, list[object]] = {"title": ["red mug", "blue tin", "big red mug"]}
    contexts = [SearchContext(query=query, now_ms=0) for query in asked]
    feature = WordPlaces(name="places", source="item.title")
    data = FittingData(contexts=contexts, item_columns=columns, taken_R=np.array(rows))
    (fitted,) = fit_spec([feature], data).features
    assert isinstance(fitted, WordPlaces)
    none, one, two, three = fitted.lifts
    assert none == one == three == (), "few takes of three words say nothing"
    counts = np.array([0, 20, 60, 0])
    assert two == pytest.approx(np.log((counts + 30 / 4) / 110 * 4), abs=1e-4)
    assert fit_spec([fitted], replace(data, contexts=(), taken_R=np.empty(0, np.int64))).features == (fitted,)
    assert fit_spec([feature], DATA).features == (replace(feature, lifts=((),) * 3),)


def test_constant_and_missing_values_still_give_a_scale() -> None:
    spec = fit_spec(
        [Number(name="nothing", source="user.nothing"), ChannelColumn(name="none", column="none.score")], DATA
    )
    assert [(f.mean, f.std) for f in spec.features if isinstance(f, Number | ChannelColumn)] == [(0, 1)] * 2


def test_buckets_are_about_equally_full() -> None:
    columns: dict[str, list[object]] = {
        "n": [*map(float, range(100)), None],
        "ties": [1.0 + (n >= 60) for n in range(100)],
    }
    spec = fit_spec(
        [
            Quantile(name="n", source="item.n", buckets=4),
            Quantile(name="ties", source="item.ties", buckets=4),
            Quantile(name="nothing", source="user.nothing"),
        ],
        FittingData(contexts=CONTEXTS, item_columns=columns),
    )
    assert [f.boundaries for f in spec.features if isinstance(f, Quantile)] == [
        (25.0, 50.0, 75.0),
        (2.0,),
        (),
    ]


def test_shared_categories_have_one_vocabulary_and_one_table() -> None:
    columns: dict[str, list[object]] = {"places": [["uk", "de"] if n else ["is"] for n in range(6)]}
    features: list[Feature] = [
        Category(name="country", source="user.country", vocabulary=()),
        Categories(name="sold_in", source="item.places", vocabulary=(), max_len=2),
    ]
    shared = (("country", "sold_in"),)
    spec = fit_spec(features, FittingData(contexts=CONTEXTS, item_columns=columns), shared=shared)
    country, sold_in = spec.features
    assert isinstance(country, Category)
    assert isinstance(sold_in, Categories)
    assert country.vocabulary == sold_in.vocabulary == ("de", "fr", "uk")
    inputs = model_inputs(spec, None, 7, shared=shared)
    assert inputs.tables == {"country": 4}
    assert inputs.item == (Field(name="sold_in", kind="bag", table="country"),)
    with pytest.raises(ValueError, match="'town' shares a vocabulary"):
        fit_spec(features, DATA, shared=(("country", "town"),))


def test_an_unknown_item_column_is_named() -> None:
    with pytest.raises(ValueError, match="'weight'"):
        fit_spec([Number(name="weight", source="item.weight")], DATA)


def test_models_learn_fields_and_shared_tables() -> None:
    tokenizer = Tokenizer.train(["red mug"], vocab_size=50)
    spec = FeatureSpec(
        features=(
            Tokens(name="query", source="query", max_len=4),
            Tokens(name="title", source="item.title", max_len=4),
            Ngrams(name="query_ngrams", source="query", buckets=10, max_len=4),
            Category(name="country", source="user.country", vocabulary=("uk",)),
            Number(name="price", source="item.price"),
            ItemId(name="item_row"),
            Quantile(name="age", source="item.age", boundaries=(1.0,)),
            ItemRows(name="near", source="item.near", max_len=2),
            HistoryItems(name="history", max_len=3),
            HistoryAges(name="ages", max_len=3, boundaries_days=(1.0,)),
            ReciprocalRank(name="rank", column="lexical.rank"),
        )
    )
    inputs = model_inputs(spec, tokenizer, 7)
    assert inputs.tables == {
        "tokens": tokenizer.vocab_size,
        "ngrams_3_10": 11,
        "country": 2,
        "items": 8,
        "age": 3,
    }
    assert inputs.item == (
        Field(name="title", kind="bag", table="tokens"),
        Field(name="price", kind="number"),
        Field(name="item_row", kind="id", table="items"),
        Field(name="age", kind="id", table="age"),
        Field(name="near", kind="bag", table="items"),
    )
    assert inputs.history == HistoryField(items="history", ages="ages", table="items", age_buckets=3)
    assert inputs.cross == ("rank",)


def test_a_name_that_programs_use_themselves_is_refused() -> None:
    with pytest.raises(ValueError, match="called item"):
        model_inputs(FeatureSpec(features=(ItemId(name="item"),)), None, 7)


def test_a_history_without_ages_is_a_bag_of_the_newest() -> None:
    spec = FeatureSpec(
        features=(
            HistoryItems(name="history", max_len=3),
            HistoryAges(name="ages", max_len=3, boundaries_days=(1.0,)),
            HistoryItems(name="bought", max_len=3, actions=("purchase",)),
        )
    )
    inputs = model_inputs(spec, None, 7)
    assert inputs.request == (Field(name="bought", kind="bag", table="items"),)
    assert inputs.history == HistoryField(items="history", ages="ages", table="items", age_buckets=3)


def test_ages_without_their_history_are_refused() -> None:
    ages = HistoryAges(name="ages", max_len=3, boundaries_days=(1.0,))
    with pytest.raises(ValueError, match="'ages' needs one HistoryItems"):
        model_inputs(FeatureSpec(features=(HistoryItems(name="history", max_len=4), ages)), None, 7)
    with pytest.raises(ValueError, match="'later' is a second"):
        model_inputs(FeatureSpec(features=(ages, replace(ages, name="later"))), None, 7)


def test_categories_of_events_go_with_those_of_items() -> None:
    events: tuple[Feature, ...] = (
        HistoryItems(name="history", max_len=3),
        HistoryAges(name="ages", max_len=3, boundaries_days=(1.0,)),
        HistoryCategories(name="groups", source="item.group", vocabulary=("x",), max_len=3),
    )
    group = Category(name="group", source="item.group", vocabulary=("x",))
    history = model_inputs(FeatureSpec(features=(*events, group)), None, 7).history
    assert history is not None
    assert (history.categories, history.item_category) == ("groups", "group")
    other = replace(group, vocabulary=("x", "y"))
    with pytest.raises(ValueError, match=r"'groups' needs a Category of item\.group"):
        model_inputs(FeatureSpec(features=(*events, other)), None, 7)
