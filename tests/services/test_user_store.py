"""One contract for every user store."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.redis_settings import RedisSettings
from services.user_history import DEFAULT_LIMITS, EventLimits, UserEvent
from services.user_store import MemoryUserStore, Recorded, UserStore
from services.user_store_opening import open_users
from services.user_store_settings import UserStoreSettings
from shards.errors import InvalidInput
from shards.search_context import History, RawValue, UserState
from tests.services.redis_server import RedisServer

LATER = 10**15
Place = Path | RedisSettings | None


@pytest.fixture(params=["memory", "lmdb", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.settings(prefix=uuid.uuid4().hex)
    return tmp_path / "users.lmdb" if request.param == "lmdb" else None


def check(
    place: Place, body: Callable[[UserStore], Awaitable[None]], limits: EventLimits = DEFAULT_LIMITS
) -> None:
    """Run the body with the store at this place."""

    async def main() -> None:
        async with open_users(UserStoreSettings(place=place, limits=limits)) as store:
            await body(store)

    asyncio.run(main())


def event(user_id: str, item_id: str, timestamp_ms: int, action: str = "click") -> UserEvent:
    return UserEvent(user_id=user_id, item_id=item_id, action=action, timestamp_ms=timestamp_ms)


def numbered(events: Sequence[UserEvent], first: int = 0) -> dict[str, UserEvent]:
    return {f"e{number}": event for number, event in enumerate(events, first)}


def test_an_unknown_user_has_nothing(place: Place) -> None:
    async def body(store: UserStore) -> None:
        for user_id in ("nobody", "", "x" * 600, "a\0b"):
            assert await store.get(user_id, LATER, 10) == UserState(user_id=user_id)

    check(place, body)


def test_features_and_events_come_back(place: Place) -> None:
    async def body(store: UserStore) -> None:
        features: dict[str, RawValue] = {"age": 33.0, "city": "Zürich", "tags": ("a", "b"), "none": ()}
        events = [event("ü", "i2", 20, "purchase"), event("ü", "i1", 10), event("v", "i3", 5)]
        assert await store.load({"ü": features, "w": {"age": 1.5}}, events) == 3
        assert await store.get("ü", LATER, 10) == UserState(
            user_id="ü", features=features, history=History(("i1", "i2"), ("click", "purchase"), (10, 20))
        )
        assert (await store.get("v", LATER, 10)).features == {}
        assert await store.get("w", LATER, 10) == UserState(user_id="w", features={"age": 1.5})

    check(place, body)


def test_only_events_strictly_before_now_count(place: Place) -> None:
    async def body(store: UserStore) -> None:
        await store.load({}, [event("u", f"i{t}", t) for t in (10, 20, 20, 30)])
        assert (await store.get("u", 20, 10)).history.item_ids == ("i10",)
        assert (await store.get("u", 21, 10)).history.timestamps_ms == (10, 20, 20)
        assert (await store.get("u", 10, 10)).history == History()

    check(place, body)


def test_the_newest_events_are_given(place: Place) -> None:
    async def body(store: UserStore) -> None:
        await store.load({}, [event("u", f"i{t}", t, f"action {t % 3}") for t in range(50)])
        kept = (await store.get("u", 40, 3)).history
        assert kept == History(("i37", "i38", "i39"), ("action 1", "action 2", "action 0"), (37, 38, 39))
        assert (await store.get("u", 40, 0)).history == History()

    check(place, body)


def test_events_of_one_moment_keep_their_order(place: Place) -> None:
    async def body(store: UserStore) -> None:
        await store.load({}, [event("u", item_id, 7) for item_id in ("c", "a", "b")])
        await store.record(numbered([event("u", "d", 7), event("u", "a", 7)]))
        await store.record(numbered([event("u", "0", 7)], first=2))
        assert (await store.get("u", LATER, 10)).history.item_ids == ("c", "a", "b", "d", "a", "0")

    check(place, body)


def test_load_replaces(place: Place) -> None:
    async def body(store: UserStore) -> None:
        await store.load({"u": {"age": 1.0}}, [event("u", "old", 1)])
        await store.load({}, [event("u", "new", 2)])
        new = UserState(user_id="u", history=History(("new",), ("click",), (2,)))
        assert await store.get("u", LATER, 10) == new
        await store.load({"u": {}}, [])
        assert await store.get("u", LATER, 10) == UserState(user_id="u")
        assert await store.load({}, []) == 0

    check(place, body)


def test_recorded_events_join_in_order_of_time(place: Place) -> None:
    async def body(store: UserStore) -> None:
        await store.load({"u": {"age": 1.0}}, [event("u", "b", 20)])
        came = numbered([event("u", "c", 30), event("u", "a", 10, "purchase"), event("new", "a", 1)])
        assert await store.record(came) == Recorded(recorded=3, duplicates=0)
        known = await store.get("u", LATER, 10)
        assert known.features == {"age": 1.0}
        assert known.history == History(("a", "b", "c"), ("purchase", "click", "click"), (10, 20, 30))
        assert (await store.get("new", LATER, 10)).history.item_ids == ("a",)
        assert (await store.get("u", 30, 1)).history.item_ids == ("b",)
        assert await store.record({}) == Recorded(recorded=0, duplicates=0)

    check(place, body)


def test_an_event_counts_once(place: Place) -> None:
    async def body(store: UserStore) -> None:
        first = numbered([event("u", "a", 1), event("v", "b", 2)])
        await store.record(first)
        assert await store.record(first) == Recorded(recorded=0, duplicates=2)
        more = numbered([event("u", "a", 1), event("v", "b", 2), event("u", "c", 3)])
        assert await store.record(more) == Recorded(recorded=1, duplicates=2)
        assert (await store.get("u", LATER, 10)).history.item_ids == ("a", "c")
        assert (await store.get("v", LATER, 10)).history.item_ids == ("b",)
        # The id says which event it is, whatever else of it is another.
        assert await store.record({"e0": event("w", "x", 9)}) == Recorded(recorded=0, duplicates=1)
        assert await store.get("w", LATER, 10) == UserState(user_id="w")

    check(place, body)


def test_of_each_user_the_newest_events_are_kept(place: Place) -> None:
    async def body(store: UserStore) -> None:
        await store.load({}, [event("u", f"old {t}", t) for t in range(10)])
        assert len((await store.get("u", LATER, 100)).history.item_ids) == 10
        await store.record(numbered([event("u", f"i{t}", t) for t in (100, 50, 75)]))
        assert (await store.get("u", LATER, 100)).history.timestamps_ms == (8, 9, 50, 75, 100)
        # What is older than all that is kept is recorded, and dropped at once.
        assert (await store.record(numbered([event("u", "late", 3)], first=3))).recorded == 1
        assert (await store.get("u", LATER, 100)).history.timestamps_ms == (8, 9, 50, 75, 100)
        await store.record(numbered([event("v", f"i{n}", 5) for n in range(7)], first=4))
        kept = (await store.get("v", LATER, 100)).history.item_ids
        assert kept == ("i2", "i3", "i4", "i5", "i6")

    check(place, body, EventLimits(events=5))


def test_the_newest_event_ids_are_known(place: Place) -> None:
    async def body(store: UserStore) -> None:
        await store.record(numbered([event("u", "a", 1)]))
        await store.record(numbered([event("u", "b", n) for n in range(999)], first=1))
        assert (await store.record(numbered([event("u", "a", 1)]))).duplicates == 1
        await store.record(numbered([event("u", "c", 5)], first=1_000))
        again = numbered([event("u", "b", 0)], first=1) | numbered([event("u", "a", 1)])
        assert await store.record(again) == Recorded(recorded=1, duplicates=1)

    check(place, body, EventLimits(events=10, event_ids=1_000))


@pytest.mark.parametrize(
    ("features", "events"),
    [
        ({"": {}}, []),
        ({"x" * 512: {}}, []),
        ({"u": {"age": float("nan")}}, []),
        ({}, [event("u", "a\0b", 1)]),
        ({}, [event("u", "a", 1, "x\0y")]),
        ({}, [event("u", "a", 2**63)]),
        ({}, [event("u", "a", t, f"action {t}") for t in range(65_536)]),
    ],
    ids=("empty id", "long id", "NaN", "NUL in item", "NUL in action", "moment", "actions"),
)
def test_what_cannot_be_stored_is_refused_whole(
    place: Place, features: dict[str, dict[str, float]], events: list[UserEvent]
) -> None:
    async def body(store: UserStore) -> None:
        with pytest.raises(InvalidInput):
            await store.load({"first": {"age": 1.0}, **features}, events)
        assert (await store.get("first", LATER, 10)).features == {}

    check(place, body)


def test_what_cannot_be_recorded_is_refused_whole(place: Place) -> None:
    async def body(store: UserStore) -> None:
        good = numbered([event("u", "a", 1)])
        for bad in (event("x" * 512, "a", 1), event("u", "a\0", 1), event("u", "a", 2**60)):
            with pytest.raises(InvalidInput):
                await store.record(good | numbered([bad], first=1))
        assert await store.get("u", LATER, 10) == UserState(user_id="u")
        assert await store.record(good) == Recorded(recorded=1, duplicates=0)

    check(place, body)


def test_requests_at_once_count_every_event_once(place: Place) -> None:
    async def body(store: UserStore) -> None:
        requests = [
            numbered([event(f"u{n % 3}", f"i{n}", n) for n in range(at, at + 20)], first=at)
            for at in range(0, 200, 10)
        ]
        came = await asyncio.gather(*(store.record(request, timeout_s=20.0) for request in requests))
        assert sum(recorded.recorded for recorded in came) == 210
        assert sum(recorded.duplicates for recorded in came) == 190
        for user in range(3):
            history = (await store.get(f"u{user}", LATER, 1_000)).history
            assert history.timestamps_ms == tuple(range(user, 210, 3))

    check(place, body)


MOMENTS = st.integers(0, 6)
REQUESTS = st.lists(
    st.dictionaries(
        st.sampled_from([f"e{n}" for n in range(12)]),
        st.builds(event, st.sampled_from("uv"), st.sampled_from("abc"), MOMENTS, st.sampled_from("xy")),
        max_size=5,
    ),
    max_size=8,
)


@pytest.mark.parametrize("kind", ["lmdb", "redis"])
def test_stores_agree_with_the_one_in_memory(kind: str, tmp_path: Path, redis_server: RedisServer) -> None:
    """Whatever comes in, in whatever order and however often."""

    @given(requests=REQUESTS, now_ms=MOMENTS, limit=st.integers(0, 5))
    def agrees(requests: list[Mapping[str, UserEvent]], now_ms: int, limit: int) -> None:
        name = uuid.uuid4().hex
        there = tmp_path / name if kind == "lmdb" else redis_server.settings(prefix=name)

        async def body(store: UserStore) -> None:
            memory = MemoryUserStore(EventLimits(events=4))
            for request in requests:
                assert await store.record(request) == await memory.record(request)
            for user_id in "uv":
                assert await store.get(user_id, now_ms, limit) == await memory.get(user_id, now_ms, limit)
                assert await store.get(user_id, LATER, 100) == await memory.get(user_id, LATER, 100)

        check(there, body, EventLimits(events=4))

    agrees()


@pytest.mark.parametrize("limits", [{"events": 0}, {"events": 50_001}, {"event_ids": 999}])
def test_limits_that_make_no_sense_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="kept"):
        EventLimits(**limits)


def test_all_users_are_listed_once(place: Place) -> None:
    async def body(store: UserStore) -> None:
        assert [user_id async for user_id in store.user_ids()] == []
        many = {f"u[{number}]*": {"n": float(number)} for number in range(1_200)}
        await store.load(many, [event("ü", "a", 1), event("u[7]*", "a", 1)])
        await store.record(numbered([event("later", "a", 2)]))
        found = [user_id async for user_id in store.user_ids()]
        assert len(found) == len(set(found)) == 1_202
        assert set(found) == {*many, "ü", "later"}

    check(place, body)


def test_features_are_added_beside_what_is_there(place: Place) -> None:
    async def body(store: UserStore) -> None:
        await store.load({"u": {"age": 33.0, "city": "Bath"}}, [event("u", "a", 1), event("v", "b", 2)])
        await store.record(numbered([event("u", "c", 3)]))
        many: dict[str, dict[str, RawValue]] = {f"n{number}": {"n": 1.0} for number in range(700)}
        added: dict[str, dict[str, RawValue]] = {"u": {"city": "Hull", "vector/m": "1 A"}, "v": {"x": 1.0}}
        assert await store.add_features(added | many) == 702
        assert await store.get("u", LATER, 10) == UserState(
            user_id="u",
            features={"age": 33.0, "city": "Hull", "vector/m": "1 A"},
            history=History(("a", "c"), ("click", "click"), (1, 3)),
        )
        assert await store.get("v", LATER, 10) == UserState(
            user_id="v", features={"x": 1.0}, history=History(("b",), ("click",), (2,))
        )
        assert (await store.get("n699", LATER, 10)).features == {"n": 1.0}
        with pytest.raises(InvalidInput):
            await store.add_features({"u": {"x": float("nan")}})

    check(place, body)
