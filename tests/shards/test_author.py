"""The author engine, by hand."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.author import Author, open_author
from shards.bundle import open_bundle, write_bundle
from shards.errors import MismatchedBundle
from shards.forward_index import ITEMS_FILE
from shards.release import Stage
from shards.search_context import FilterClause, History, RawValue, SearchContext, UserState
from tests.shards.bundles import DAY_MS, NOW_MS, lookup, manifest

TABLE = lookup([("acme", "a", 3.0), ("acme", "b", 1.0), ("bolt", "c", 2.0), ("bolt", "a", 0.5)])


def opened(root: Path, **params: object) -> Author:
    def fill(folder: Path) -> None:
        items = {"item_id": list("abcd"), "brand": ["acme", "acme", "bolt", None]}
        pq.write_table(pa.table(items), folder / ITEMS_FILE)
        pq.write_table(TABLE, folder / "index.parquet")

    described = manifest("author", Stage.RETRIEVAL, "author", params={"column": "brand"} | params)
    return open_author(open_bundle(write_bundle(root, described, fill)), "cpu")


def scores(engine: Author, *item_ids: str, **features: RawValue) -> dict[str, float]:
    times = tuple(NOW_MS - days * DAY_MS for days in reversed(range(len(item_ids))))
    history = History(item_ids, ("buy",) * len(item_ids), times)
    asking = SearchContext(user=UserState(features=features, history=history), now_ms=NOW_MS)
    found = engine.retrieve(asking, 10, (), (), 0)
    return dict(zip(found.item_ids, found.columns["score"].tolist(), strict=True))


def test_authors_of_what_the_user_met_count_by_how_often_and_how_lately(tmp_path: Path) -> None:
    assert scores(opened(tmp_path / "1"), "d", "b", "c", "c") == {"a": 4.0, "c": 4.0, "b": 1.0}
    fading = opened(tmp_path / "2", half_life_days=1.0)
    assert scores(fading, "b", "gone", "c") == {"c": 2.0, "a": 0.25 * 3.0 + 0.5, "b": 0.25}


def test_authors_that_the_user_follows_count(tmp_path: Path) -> None:
    engine = opened(tmp_path, followed="follows", followed_weight=2.0)
    assert scores(engine, follows=("bolt", "nobody")) == {"c": 4.0, "a": 1.0}
    assert scores(engine, follows="acme") == {"a": 6.0, "b": 2.0}
    assert scores(engine, "c", follows=("bolt",)) == {"c": 6.0, "a": 1.5}
    assert scores(engine, likes=("bolt",)) == {}


def test_a_filter_holds(tmp_path: Path) -> None:
    history = History(("a",), ("buy",), (NOW_MS,))
    asking = SearchContext(user=UserState(history=history), now_ms=NOW_MS)
    other = (FilterClause(attribute="item_id", any_of=("a",), negate=True),)
    assert opened(tmp_path).retrieve(asking, 10, other, ("brand",), 1).attributes == {"brand": ("acme",)}


@pytest.mark.parametrize("params", [{"column": ""}, {"followed_weight": -1.0}, {"half_life_days": 0.0}])
def test_settings_that_cannot_be_are_refused(tmp_path: Path, params: dict[str, object]) -> None:
    with pytest.raises(MismatchedBundle):
        opened(tmp_path, **params)
