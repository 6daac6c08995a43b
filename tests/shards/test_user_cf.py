"""User CF against values worked out by hand."""

from collections.abc import Sequence
from math import log
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shards.bundle import open_bundle, write_bundle
from shards.errors import CorruptBundle, MismatchedBundle
from shards.forward_index import ITEMS_FILE
from shards.release import Stage
from shards.search_context import FilterClause, History, SearchContext, UserState
from shards.user_cf import MET_FILE, UserCF, open_user_cf
from tests.shards.bundles import DAY_MS, NOW_MS, manifest

Pair = tuple[str, str, float, float]

MET: tuple[Pair, ...] = (
    ("u", "a", 0, 0),
    ("u", "b", 0, 0),
    ("v", "b", 1, 1),
    ("v", "c", 1, 2),
    ("w", "a", 0, 0),
    ("w", "b", 0, 0),
    ("w", "c", 0, 1),
    ("w", "d", 0, 0),
)
"""Two users met a and c, three b, one d."""


def opened(root: Path, met: Sequence[Pair] = MET, **params: object) -> UserCF:
    columns = zip(*met, strict=True)
    names = ("user_id", "item_id", "newest_days", "first_days")

    def fill(folder: Path) -> None:
        pq.write_table(pa.table({"item_id": list("abcd")}), folder / ITEMS_FILE)
        pq.write_table(pa.table(dict(zip(names, map(list, columns), strict=True))), folder / MET_FILE)

    described = manifest("user_cf", Stage.RETRIEVAL, "user_cf", params=params)
    return open_user_cf(open_bundle(write_bundle(root, described, fill)), "cpu")


def scores(engine: UserCF, *item_ids: str, user_id: str = "x", k: int = 10) -> dict[str, object]:
    history = History(item_ids, ("buy",) * len(item_ids), (NOW_MS,) * len(item_ids))
    asking = SearchContext(user=UserState(user_id=user_id, history=history), now_ms=NOW_MS)
    found = engine.retrieve(asking, k, (), (), 0)
    pairs = zip(found.item_ids, found.columns["score"].tolist(), strict=True)
    return {item_id: pytest.approx(score, rel=1e-6) for item_id, score in pairs}


A, B = 1 / log(3), 1 / log(4)
"""What two users say who both met a, which two met, or b, which three did."""


def test_similar_users_say_what_they_like(tmp_path: Path) -> None:
    u, v, w = (A + B) / 4**0.5, B / 4**0.5, (A + B) / 8**0.5
    assert scores(opened(tmp_path), "a", "b") == {"a": u + w, "b": u + v + w, "c": v + w, "d": w}
    assert list(scores(opened(tmp_path / "2"), "a", "b")) == ["b", "a", "c", "d"]


def test_only_the_nearest_users_count_and_never_the_one_who_asks(tmp_path: Path) -> None:
    engine = opened(tmp_path, neighbours=1)
    assert scores(engine, "a", "b") == {"a": (A + B) / 2, "b": (A + B) / 2}
    assert scores(engine, "a", "b", user_id="u") == dict.fromkeys("abcd", (A + B) / 8**0.5)


def test_likes_fade_and_discoveries_since_the_first_time(tmp_path: Path) -> None:
    engine = opened(tmp_path / "1", MET[2:4], half_life_days=1.0)
    assert scores(engine, "b") == {"b": (1 / log(2)) / 2 / 2**0.5, "c": (1 / log(2)) / 2 / 2**0.5}
    fresh = opened(tmp_path / "2", MET[:4], fresh_half_life_days=1.0)
    v = 1 / log(3) / 2**0.5
    assert scores(fresh, "b")["c"] == v / 2
    discovered = opened(tmp_path / "3", MET[:4], fresh_half_life_days=1.0, discovery=True)
    assert scores(discovered, "b")["c"] == v / 4


def test_a_stranger_is_told_nothing_and_filters_hold(tmp_path: Path) -> None:
    engine = opened(tmp_path)
    assert scores(engine) == {}
    assert scores(engine, "nowhere") == {}
    history = History(("a",), ("buy",), (NOW_MS - DAY_MS,))
    asking = SearchContext(user=UserState(history=history), now_ms=NOW_MS)
    other = (FilterClause(attribute="item_id", any_of=("a", "b"), negate=True),)
    assert engine.retrieve(asking, 10, other, (), 0).item_ids == ("c", "d")
    assert engine.retrieve(asking, 1, (), ("item_id",), 1).attributes == {"item_id": ("a",)}


@pytest.mark.parametrize(
    ("met", "params", "problem"),
    [
        ((("u", "gone", 0.0, 0.0),), {}, "holds item 'gone'"),
        ((("u", "a", float("nan"), 0.0),), {}, "not a finite number"),
        (MET, {"neighbours": 0}, "neighbours must be at least 1"),
        (MET, {"half_life_days": 0.0}, "half life must be above 0"),
    ],
)
def test_what_cannot_be_is_refused(
    tmp_path: Path, met: Sequence[Pair], params: dict[str, object], problem: str
) -> None:
    with pytest.raises(MismatchedBundle, match=problem):
        opened(tmp_path, met, **params)


def test_a_table_without_ages_is_refused(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        pq.write_table(pa.table({"item_id": ["a"]}), folder / ITEMS_FILE)
        pq.write_table(pa.table({"item_id": ["a"]}), folder / MET_FILE)

    described = manifest("user_cf", Stage.RETRIEVAL, "user_cf")
    with pytest.raises(CorruptBundle, match="cannot be read"):
        open_user_cf(open_bundle(write_bundle(tmp_path, described, fill)), "cpu")
