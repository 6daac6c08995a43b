from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.bundle import open_bundle, write_bundle
from shards.candidates import Candidates
from shards.errors import CorruptBundle, MismatchedBundle
from shards.forward_index import ForwardIndex
from shards.lookup_table import LookupParams, LookupTable, open_lookup_table, read_table
from shards.release import Stage
from shards.search_context import FilterClause, History, SearchContext, UserState
from shards.stages import Retriever
from tests.shards.bundles import DAY_MS, NOW_MS, context, lookup, manifest, write_items

Open = Callable[[str], Retriever]

ITEMS = ForwardIndex(pa.table({"item_id": list("abcdef"), "kind": list("xxyyzz")}))


def engine(params: LookupParams, *rows: tuple[str, str, float], tmp_path: Path) -> LookupTable:
    pq.write_table(lookup(rows), tmp_path / "index.parquet")
    return LookupTable(items=ITEMS, params=params, table=read_table(tmp_path / "index.parquet", ITEMS))


def scores(found: Candidates) -> dict[str, float]:
    return dict(zip(found.item_ids, found.columns["score"].tolist(), strict=True))


def test_a_query_is_looked_up_as_normalised(tmp_path: Path) -> None:
    table = engine(
        LookupParams(key="query"),
        ("red mug", "b", 0.5),
        ("red mug", "a", 0.75),
        ("mug", "c", 1),
        tmp_path=tmp_path,
    )
    for query in ("red mug", "  Red  MÚG! "):
        found = table.retrieve(context(query), 10, (), ("kind",), 1)
        assert scores(found) == {"a": 0.75, "b": 0.5}
        assert found.attributes == {"kind": ("x",)}
    for query in ("", "   ", "redmug"):
        assert len(table.retrieve(context(query), 10, (), (), 0)) == 0


def test_words_of_a_query_add_up_and_count_once(tmp_path: Path) -> None:
    rows = [("red", "a", 0.5), ("red", "b", 0.25), ("mug", "b", 0.5), ("blue", "c", 1)]
    table = engine(LookupParams(key="query_token"), *rows, tmp_path=tmp_path)
    assert scores(table.retrieve(context("Red mug red green"), 10, (), (), 0)) == {"b": 0.75, "a": 0.5}


def test_the_global_list_is_the_same_for_all(tmp_path: Path) -> None:
    table = engine(LookupParams(key="global"), ("", "c", 0.5), ("", "a", 0.75), tmp_path=tmp_path)
    assert table.retrieve(context("", "f"), 10, (), (), 0).item_ids == ("a", "c")


def test_history_adds_up_and_fades(tmp_path: Path) -> None:
    rows = [("a", "b", 1.0), ("a", "c", 0.5), ("d", "c", 1.0), ("zz", "e", 1.0)]
    table = engine(LookupParams(key="history", half_life_days=1.0), *rows, tmp_path=tmp_path)
    # "a" is two days old and "d" one; both count, and "f" and "unknown" have no row.
    history = History(
        ("unknown", "a", "d", "f"), ("buy",) * 4, tuple(NOW_MS - days * DAY_MS for days in (3, 2, 1, 0))
    )
    asking = SearchContext(user=UserState(history=history), now_ms=NOW_MS)
    assert scores(table.retrieve(asking, 10, (), (), 0)) == {"c": 0.625, "b": 0.25}


def test_only_some_actions_count(tmp_path: Path) -> None:
    table = engine(
        LookupParams(key="history", actions=("buy",)), ("a", "b", 1.0), ("c", "d", 1.0), tmp_path=tmp_path
    )
    history = History(("a", "c", "c"), ("view", "buy", "buy"), (1, 2, 3))
    asking = SearchContext(user=UserState(history=history), now_ms=NOW_MS)
    assert scores(table.retrieve(asking, 10, (), (), 0)) == {"d": 2.0}


def own(params: LookupParams, *events: tuple[str, str, int]) -> dict[str, float]:
    """Return what is found among a user's own items, of events as (item, action, days ago)."""
    item_ids, actions, days = zip(*events, strict=True)
    history = History(item_ids, actions, tuple(NOW_MS - ago * DAY_MS for ago in days))
    asking = SearchContext(user=UserState(history=history), now_ms=NOW_MS)
    return scores(LookupTable(items=ITEMS, params=params, table=None).retrieve(asking, 10, (), (), 0))


def test_an_item_may_count_once_by_its_newest_event() -> None:
    events = (("a", "buy", 3), ("b", "buy", 2), ("a", "buy", 1))
    params = LookupParams(key="user_items", half_life_days=1.0, once=True)
    assert own(params, *events) == {"a": 0.5, "b": 0.25}


def test_what_was_ranked_high_is_kept_until_it_is_seen_or_expires() -> None:
    params = LookupParams(
        key="user_items", actions=("unshown",), once=True, expires_days=7.0, newest_only=True
    )
    events = (("a", "unshown", 9), ("b", "unshown", 7), ("c", "unshown", 3), ("d", "click", 3))
    assert own(params, *events) == {"b": 1.0, "c": 1.0}
    assert own(params, *events, ("c", "impression", 1)) == {"b": 1.0}
    assert own(params, *events, ("c", "impression", 2), ("c", "unshown", 1)) == {"b": 1.0, "c": 1.0}


def test_own_items_count_by_events_and_age(retriever: Open) -> None:
    asking = context("", "item-005", "gone", "item-003", "item-005", now_ms=NOW_MS)
    found = retriever("again").retrieve(asking, 10, (), ("title",), 2)
    assert found.item_ids == ("item-005", "item-003")
    assert found.columns["score"].tolist() == pytest.approx(
        [0.5 ** (4 / 30) + 0.5 ** (1 / 30), 0.5 ** (2 / 30)], rel=1e-6
    )
    assert len(retriever("again").retrieve(context("red mug"), 10, (), (), 0)) == 0


def test_a_filter_and_k_cut_the_list(tmp_path: Path) -> None:
    rows = [("", item_id, score) for item_id, score in zip("abcdef", (6, 5, 4, 3, 2, 1), strict=True)]
    table = engine(LookupParams(key="global"), *rows, tmp_path=tmp_path)
    late = (FilterClause(attribute="kind", any_of=("y", "z")),)
    assert table.retrieve(context(), 3, late, (), 0).item_ids == ("c", "d", "e")
    assert len(table.retrieve(context(), 10_000, (), (), 0)) == 6


table_rows = st.lists(
    st.tuples(st.sampled_from("pqrs"), st.sampled_from("abcdef"), st.integers(-8, 8).map(float)), min_size=1
)


@given(table_rows, st.lists(st.sampled_from("pqrst"), max_size=6))
def test_sums_are_those_of_a_loop(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, float]], keys: list[str]
) -> None:
    table = engine(LookupParams(key="query_token"), *rows, tmp_path=tmp_path_factory.mktemp("t"))
    expected: dict[str, float] = {}
    for key, item_id, score in rows:
        if key in keys:
            expected[item_id] = expected.get(item_id, 0.0) + score
    found = table.retrieve(context(" ".join(keys)), 10, (), (), 0)
    assert scores(found) == expected
    assert found.item_ids == tuple(sorted(expected, key=lambda item_id: (-expected[item_id], item_id)))


@pytest.mark.parametrize(
    ("table", "error", "problem"),
    [
        (pa.table({"key": ["q"], "score": [1.0]}), CorruptBundle, "index.parquet: cannot be read"),
        (lookup([("q", "item-000", float("nan"))]), MismatchedBundle, "not a finite number"),
        (lookup([("q", "nowhere", 1.0)]), MismatchedBundle, "holds item 'nowhere', which items.parquet"),
    ],
)
def test_a_table_that_cannot_be_is_refused(
    tmp_path: Path, table: pa.Table, error: type[Exception], problem: str
) -> None:
    def fill(folder: Path) -> None:
        write_items(folder)
        pq.write_table(table, folder / "index.parquet")

    described = manifest("memory", Stage.RETRIEVAL, "table", params={"key": "query"})
    with pytest.raises(error, match=problem):
        open_lookup_table(open_bundle(write_bundle(tmp_path, described, fill)), "cpu")


@pytest.mark.parametrize(
    ("params", "problem"),
    [
        ({"key": "title"}, "key 'title' is none of query, query_token"),
        ({}, "has no field 'key'"),
        ({"key": "history", "half_life_days": 0.0}, "half_life_days must be above 0"),
        ({"key": "history", "expires_days": 0.0}, "expires_days must be above 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, params: dict[str, object], problem: str) -> None:
    described = manifest("memory", Stage.RETRIEVAL, "table", params=params)
    with pytest.raises(MismatchedBundle, match=problem):
        open_lookup_table(open_bundle(write_bundle(tmp_path, described, write_items)), "cpu")
