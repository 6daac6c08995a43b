"""One contract for every user store, and what LMDB alone must do."""

import multiprocessing
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from services.user_store import LmdbUserStore, MemoryUserStore, UserEvent, UserStore
from shards.errors import CorruptRecord, InvalidInput, NotFound
from shards.search_context import History, RawValue, UserState

LATER = 10**15


@pytest.fixture(params=["memory", "lmdb"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[UserStore]:
    if request.param == "memory":
        yield MemoryUserStore()
        return
    with LmdbUserStore.open(tmp_path / "users.lmdb") as opened:
        yield opened


def event(user_id: str, item_id: str, timestamp_ms: int, action: str = "click") -> UserEvent:
    return UserEvent(user_id=user_id, item_id=item_id, action=action, timestamp_ms=timestamp_ms)


def test_an_unknown_user_has_nothing(store: UserStore) -> None:
    for user_id in ("nobody", "", "x" * 600, "a\0b"):
        assert store.get(user_id, LATER, 10) == UserState(user_id=user_id)


def test_features_and_events_come_back(store: UserStore) -> None:
    features: dict[str, RawValue] = {"age": 33.0, "city": "Zürich", "tags": ("a", "b"), "none": ()}
    events = [event("ü", "i2", 20, "purchase"), event("ü", "i1", 10), event("v", "i3", 5)]
    assert store.load({"ü": features, "w": {"age": 1.5}}, events) == 3
    assert store.get("ü", LATER, 10) == UserState(
        user_id="ü", features=features, history=History(("i1", "i2"), ("click", "purchase"), (10, 20))
    )
    assert store.get("v", LATER, 10).features == {}
    assert store.get("w", LATER, 10) == UserState(user_id="w", features={"age": 1.5})


def test_only_events_strictly_before_now_count(store: UserStore) -> None:
    store.load({}, [event("u", f"i{t}", t) for t in (10, 20, 20, 30)])
    assert store.get("u", 20, 10).history.item_ids == ("i10",)
    assert store.get("u", 21, 10).history.timestamps_ms == (10, 20, 20)
    assert store.get("u", 10, 10).history == History()


def test_the_newest_events_are_kept(store: UserStore) -> None:
    store.load({}, [event("u", f"i{t}", t, f"action {t % 3}") for t in range(50)])
    kept = store.get("u", 40, 3).history
    assert kept == History(("i37", "i38", "i39"), ("action 1", "action 2", "action 0"), (37, 38, 39))
    assert store.get("u", 40, 0).history == History()


def test_events_of_one_moment_keep_their_order(store: UserStore) -> None:
    store.load({}, [event("u", item_id, 7) for item_id in ("c", "a", "b")])
    assert store.get("u", LATER, 10).history.item_ids == ("c", "a", "b")


def test_load_replaces(store: UserStore) -> None:
    store.load({"u": {"age": 1.0}}, [event("u", "old", 1)])
    store.load({}, [event("u", "new", 2)])
    assert store.get("u", LATER, 10) == UserState(user_id="u", history=History(("new",), ("click",), (2,)))


def test_appended_events_join_in_order_of_time(store: UserStore) -> None:
    store.load({"u": {"age": 1.0}}, [event("u", "b", 20)])
    assert store.append_events([event("u", "c", 30), event("u", "a", 10), event("new", "a", 1)]) == 3
    assert store.get("u", LATER, 10).history.item_ids == ("a", "b", "c")
    assert store.get("u", LATER, 10).features == {"age": 1.0}
    assert store.get("new", LATER, 10).history.item_ids == ("a",)
    assert store.append_events([]) == 0


@pytest.mark.parametrize(
    ("features", "events"),
    [
        ({"": {}}, []),
        ({"x" * 512: {}}, []),
        ({"u": {"age": float("nan")}}, []),
        ({}, [event("u", "a\0b", 1)]),
        ({}, [event("u", "a", 1, "x\0y")]),
        ({}, [event("u", "a", 2**63)]),
    ],
)
def test_what_cannot_be_stored_is_refused_whole(
    store: UserStore, features: dict[str, dict[str, float]], events: list[UserEvent]
) -> None:
    with pytest.raises(InvalidInput):
        store.load({"first": {"age": 1.0}, **features}, events)
    assert store.get("first", LATER, 10).features == {}


def test_a_reopened_store_remembers(tmp_path: Path) -> None:
    with LmdbUserStore.open(tmp_path / "users") as store:
        store.load({"u": {"age": 1.0}}, [event("u", "a", 1)])
    with LmdbUserStore.open(tmp_path / "users", readonly=True) as store:
        assert store.get("u", LATER, 10).history.item_ids == ("a",)
        with pytest.raises(lmdb.ReadonlyError):
            store.append_events([event("u", "b", 2)])


def _read(path: Path) -> tuple[str, ...]:
    with LmdbUserStore.open(path, readonly=True) as store:
        return store.get("u", LATER, 10).history.item_ids


def test_other_processes_read_while_one_writes(tmp_path: Path) -> None:
    with (
        LmdbUserStore.open(tmp_path / "users") as store,
        multiprocessing.get_context("spawn").Pool(2) as readers,
    ):
        store.load({}, [event("u", "a", 1)])
        assert readers.map(_read, [tmp_path / "users"] * 2) == [("a",)] * 2
        store.append_events([event("u", "b", 2)])
        assert readers.map(_read, [tmp_path / "users"] * 2) == [("a", "b")] * 2


def test_a_missing_store_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="user store"):
        LmdbUserStore.open(tmp_path / "users", readonly=True)
    assert not (tmp_path / "users").exists()


def test_a_file_that_is_no_store_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.mdb").write_bytes(b"x" * 8192)
    with pytest.raises(CorruptRecord, match=str(tmp_path)):
        LmdbUserStore.open(tmp_path, readonly=True)


def _damage(path: Path, user_id: str, damaged: bytes | None, cut: int | None) -> None:
    with lmdb.open(str(path), map_size=2**30) as environment, environment.begin(write=True) as transaction:
        record = bytes(transaction.get(user_id.encode()) or b"")
        transaction.put(user_id.encode(), record[:cut] if damaged is None else damaged)


@pytest.mark.parametrize(
    ("damaged", "cut"), [(None, -1), (None, 6), (None, 20), (b"", None), (b"x" * 99, None)]
)
def test_a_corrupt_record_names_its_user(tmp_path: Path, damaged: bytes | None, cut: int | None) -> None:
    path = tmp_path / "users"
    with LmdbUserStore.open(path) as store:
        store.load({}, [event("u", "a", 1), event("v", "a", 1)])
    _damage(path, "u", damaged, cut)
    with LmdbUserStore.open(path, readonly=True) as store:
        with pytest.raises(CorruptRecord, match="record 'u' is corrupt"):
            store.get("u", LATER, 10)
        assert store.get("v", LATER, 10).history.item_ids == ("a",)
