from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.bundle import open_bundle
from shards.errors import CorruptBundle, MismatchedBundle
from shards.lexical_index import LexicalIndex
from shards.search_context import FilterClause
from shards.servable import open_servable
from shards.stages import Retriever
from tests.shards.bundles import ITEMS, context, write_lexical

Open = Callable[[str], Retriever]

TEXTS = [
    "PACK OF 60 FAIRY CAKE CASES",
    "Café au lait bowl",
    "HEARTS WRAPPING TAPE",
    "WHITE HANGING HEART T-LIGHT HOLDER",
    "RED RETROSPOT LUNCH BAG",
    "PAPER CHAIN KIT",
]
IDS = ["84991", "Cup-1/B", "10123C", "85123A", "20725", "15056BL"]
INDEX = LexicalIndex(TEXTS, IDS)


def best(query: str) -> str:
    rows, _ = INDEX.search(query, 10)
    return TEXTS[rows[0]] if len(rows) else ""


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("fairy cake", TEXTS[0]),
        ("fairycakes", TEXTS[0]),
        ("fairy cakess", TEXTS[0]),
        ("wraping", TEXTS[2]),
        ("wrapped", TEXTS[2]),
        ("tpae wrapping", TEXTS[2]),
        ("retro spot", TEXTS[4]),
        ("lunchbag", TEXTS[4]),
        ("CAFE", TEXTS[1]),
        ("cafè", TEXTS[1]),
        ("t light", TEXTS[3]),
        ("85123a", TEXTS[3]),
        ("20725", TEXTS[4]),
        ("cup-1/b", TEXTS[1]),
        ("15056bl kit", TEXTS[5]),
        ("hang", TEXTS[3]),
    ],
)
def test_what_is_typed_finds_what_is_meant(query: str, text: str) -> None:
    assert best(query) == text


@pytest.mark.parametrize("query", ["", "   ", "!?", "🎁", "zzzzqqqq", "\0"])
def test_a_query_that_is_like_nothing_finds_nothing(query: str) -> None:
    assert best(query) == ""


@given(st.text(max_size=1000))
def test_no_query_is_too_strange(query: str) -> None:
    rows, scores = INDEX.search(query, 10)
    assert len(set(rows.tolist())) == len(rows) == len(scores)
    assert (np.diff(scores) <= 0).all()


@pytest.mark.parametrize(
    ("query", "same"),
    [
        ('words:"fairy', "words fairy"),
        ("stems:*", "stems"),
        ("(fairy", "fairy"),
        ("fairy^9 +cake -of", "fairy 9 cake of"),
        ("fairy [a TO b]", "fairy a to b"),
    ],
)
def test_a_query_has_no_syntax(query: str, same: str) -> None:
    assert INDEX.search(query, 10)[0].tolist() == INDEX.search(same, 10)[0].tolist()


def test_the_engine_answers_with_attributes(retriever: Open) -> None:
    found = retriever("lexical").retrieve(context("vintage ivory teapots"), 5, (), ("title",), 1)
    assert found.item_ids[0] == "item-135"
    assert found.attributes == {"title": ("VINTAGE IVORY TEAPOT",)}
    assert (np.diff(found.columns["score"]) <= 0).all()


def test_a_filter_never_starves(retriever: Open) -> None:
    only = FilterClause(attribute="item_id", any_of=("item-199", "item-100"))
    found = retriever("lexical").retrieve(context("mug vintage"), 2, (only,), (), 0)
    assert sorted(found.item_ids) == ["item-100", "item-199"]


def test_more_than_matches_is_every_match(retriever: Open) -> None:
    colours = FilterClause(attribute="colour", any_of=("purple",))
    assert len(retriever("lexical").retrieve(context("mug"), 10_000, (), (), 0)) >= 20
    assert len(retriever("lexical").retrieve(context("mug"), 10_000, (colours,), (), 0)) >= 2
    assert len(retriever("lexical").retrieve(context(""), 10, (), (), 0)) == 0


def engine(tmp_path: Path, **params: object) -> Retriever:
    servable = open_servable(open_bundle(write_lexical(tmp_path, **params)), "cpu")
    assert isinstance(servable, Retriever)
    return servable


def test_the_prior_orders_what_a_broad_word_matches(tmp_path: Path, retriever: Open) -> None:
    popularity = dict(zip(*ITEMS.select(["item_id", "popularity"]).to_pydict().values(), strict=True))
    pink = FilterClause(attribute="colour", any_of=("pink",))

    def mean_popularity(engine: Retriever) -> float:
        found = engine.retrieve(context("pink"), 5, (pink,), (), 0)
        return float(np.mean([popularity[item_id] for item_id in found.item_ids]))

    assert mean_popularity(retriever("lexical")) > 0.2 + mean_popularity(engine(tmp_path, prior=""))


def test_the_prior_multiplies_the_score(tmp_path: Path) -> None:
    plain, weighed = (
        engine(tmp_path / name, prior=name, prior_weight=0.5).retrieve(context("red mug"), 200, (), (), 0)
        for name in ("", "popularity")
    )
    popularity = dict(zip(*ITEMS.select(["item_id", "popularity"]).to_pydict().values(), strict=True))
    scores = dict(zip(plain.item_ids, plain.columns["score"].tolist(), strict=True))
    expected = [scores[item_id] * (1 + 0.5 * popularity[item_id]) for item_id in weighed.item_ids]
    np.testing.assert_allclose(weighed.columns["score"], expected, rtol=1e-5)


def test_several_columns_are_searched(tmp_path: Path) -> None:
    found = engine(tmp_path, text_columns=["title", "price_gbp"]).retrieve(context("10.45"), 1, (), (), 0)
    assert found.item_ids == ("item-199",)


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"text_columns": []}, "text_columns names no column"),
        ({"boost": 1}, "unknown field 'boost'"),
        ({"pool": 0}, "pool must be at least 1"),
        ({"prior": "price_gbp"}, "items.parquet: column 'price_gbp' is the prior"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, params: dict[str, object], problem: str) -> None:
    with pytest.raises(MismatchedBundle, match=problem):
        engine(tmp_path, **params)


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorruptBundle, match=r"items\.parquet: has no column 'brand'"):
        engine(tmp_path, text_columns=["brand"])
