"""What the user store in Redis does beyond the contract: crashes, silence, secrets, full memory, damage."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from services.redis_settings import RedisSettings
from services.redis_user_store import RedisUserStore
from services.user_store import Recorded
from shards.errors import CorruptRecord, DeadlineExceeded, StoreFull, Unavailable
from shards.search_context import UserState
from tests.services.consul_agent import make_certificates
from tests.services.redis_server import RedisServer
from tests.services.test_user_store import LATER, event, numbered


@asynccontextmanager
async def store_of(settings: RedisSettings) -> AsyncIterator[RedisUserStore]:
    async with RedisUserStore.open(settings) as store:
        yield store


async def answers(store: RedisUserStore) -> UserState:
    """Return the user once the store answers again."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await store.get("u", LATER, 100_000, timeout_s=5.0)
            except (Unavailable, DeadlineExceeded):
                await asyncio.sleep(0.01)


class Traffic:
    """Writers and a reader that do not stop for anything, until `enough`; notes what was acknowledged."""

    def __init__(self, store: RedisUserStore) -> None:
        self._store = store
        self._news = asyncio.Condition()
        self.acknowledged: set[str] = set()
        self.enough = asyncio.Event()

    async def write(self, name: str) -> None:
        """Record events one request after the other, and again whatever got no answer."""
        number = 0
        while not self.enough.is_set():
            item_id = f"{name}-{number}"
            request = {f"{item_id}-{user}": event(user, item_id, number) for user in ("u", "v")}
            try:
                await self._store.record(request, timeout_s=5.0)
            except (Unavailable, DeadlineExceeded):
                await asyncio.sleep(0.01)
                continue
            number += 1
            async with self._news:
                self.acknowledged.add(item_id)
                self._news.notify_all()

    async def read(self) -> None:
        """Read; every failure is one that a search goes on from."""
        while not self.enough.is_set():
            with contextlib.suppress(Unavailable, DeadlineExceeded):
                await self._store.get("u", LATER, 5)
            await asyncio.sleep(0)

    async def grown(self, by: int) -> None:
        """Return when so many more are acknowledged."""
        wanted = len(self.acknowledged) + by
        async with self._news:
            await self._news.wait_for(lambda: len(self.acknowledged) >= wanted)


async def histories_of(server: RedisServer) -> tuple[tuple[str, ...], tuple[str, ...]]:
    async with store_of(server.settings()) as store:
        await answers(store)
        found = [await store.get(user, LATER, 100_000, timeout_s=5.0) for user in ("u", "v")]
        return found[0].history.item_ids, found[1].history.item_ids


def test_a_redis_that_is_killed_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        async with (
            store_of(server.settings()) as store,
            asyncio.timeout(120),
            asyncio.TaskGroup() as group,
        ):
            traffic = Traffic(store)
            for name in "abc":
                group.create_task(traffic.write(name))
            group.create_task(traffic.read())
            for _ in range(4):
                await traffic.grown(by=30)
                server.kill()
                held = set(traffic.acknowledged)
                server.start()
                assert held <= set((await histories_of(server))[0])
            traffic.enough.set()
        ours, theirs = await histories_of(server)
        assert traffic.acknowledged <= set(ours)
        # Neither twice, for all that was sent again, nor for one user without the other.
        assert len(set(ours)) == len(ours)
        assert sorted(ours) == sorted(theirs)

    with RedisServer(tmp_path / "redis") as server:
        asyncio.run(main(server))


def test_a_silent_redis_costs_one_caller_its_time_and_the_others_none(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        async with store_of(server.settings(rest_s=60.0)) as store:
            await store.record(numbered([event("u", "a", 1)]))
            server.hang()
            try:
                # Who hardly waits learns nothing, and keeps nobody from asking.
                with pytest.raises(DeadlineExceeded):
                    await store.get("u", LATER, 1, timeout_s=0.01)
                began_s = time.monotonic()
                with pytest.raises(DeadlineExceeded, match=r"did not answer within 0\.3"):
                    await store.get("u", LATER, 1, timeout_s=0.3)
                assert time.monotonic() - began_s < 5
                with pytest.raises(Unavailable, match="did not answer a moment ago"):
                    await store.get("u", LATER, 1, timeout_s=60.0)
                with pytest.raises(Unavailable, match="did not answer a moment ago"):
                    await store.record(numbered([event("u", "b", 2)], first=1), timeout_s=60.0)
            finally:
                server.wake()

    with RedisServer(tmp_path) as server:
        asyncio.run(main(server))


def test_a_redis_that_wakes_is_used_again(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        async with store_of(server.settings()) as store:
            await store.record(numbered([event("u", "a", 1)]))
            server.hang()
            with pytest.raises(DeadlineExceeded):
                await store.record(numbered([event("u", "b", 2)], first=1), timeout_s=0.2)
            server.wake()
            await answers(store)
            # Whether or not it got through before: afterwards it is there once.
            await store.record(numbered([event("u", "b", 2)], first=1))
            assert (await store.get("u", LATER, 9)).history.item_ids == ("a", "b")

    with RedisServer(tmp_path) as server:
        asyncio.run(main(server))


def test_a_redis_that_comes_late_is_found(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        async with store_of(server.settings()) as store:
            with pytest.raises(Unavailable, match=f"127.0.0.1:{server.port}"):
                await store.get("u", LATER, 1)
            server.start()
            assert await answers(store) == UserState(user_id="u")

    server = RedisServer(tmp_path)
    try:
        asyncio.run(main(server))
    finally:
        server.kill()


def test_a_full_redis_refuses_events_whole_and_can_be_read(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        async with store_of(server.settings()) as store:
            await store.record(numbered([event("u", "a", 1)]))
            assert server.tell("CONFIG", "SET", "maxmemory", "1") == b"+OK"
            refused = numbered([event("u", "b", 2), event("v", "b", 2)], first=1)
            with pytest.raises(StoreFull, match="no room left"):
                await store.record(refused)
            assert (await store.get("u", LATER, 9)).history.item_ids == ("a",)
            assert server.tell("CONFIG", "SET", "maxmemory", "0") == b"+OK"
            assert await store.record(refused) == Recorded(recorded=2, duplicates=0)

    with RedisServer(tmp_path) as server:
        asyncio.run(main(server))


def test_a_password_is_asked_for_and_never_shown(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        for password in ("", "wrong-secret"):
            async with store_of(server.settings(password=password)) as store:
                with pytest.raises(Unavailable, match=r"(?i)auth|password") as caught:
                    await store.get("u", LATER, 1)
                assert "secret" not in str(caught.value)
        settings = server.settings(password="right-secret")
        assert "secret" not in repr(settings)
        async with store_of(settings) as store:
            assert await store.get("u", LATER, 1) == UserState(user_id="u")

    with RedisServer(tmp_path, "--requirepass", "right-secret") as server:
        asyncio.run(main(server))


def test_tls_is_verified(tmp_path: Path) -> None:
    async def main(server: RedisServer, ca_path: Path) -> None:
        url = f"rediss://127.0.0.1:{server.port}"
        async with store_of(RedisSettings.from_url(url, ca_path=ca_path)) as store:
            assert await store.record(numbered([event("u", "a", 1)])) == Recorded(recorded=1, duplicates=0)
        for unknown in (url, f"redis://127.0.0.1:{server.port}"):
            async with store_of(RedisSettings.from_url(unknown)) as store:
                with pytest.raises(Unavailable):
                    await store.get("u", LATER, 1)

    certificates = tmp_path / "certificates"
    certificates.mkdir()
    _, tls = make_certificates(certificates)
    assert tls.ca_path is not None
    with RedisServer(tmp_path / "redis", certificates=certificates) as server:
        asyncio.run(main(server, tls.ca_path))


def test_a_record_that_is_none_names_its_user(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with store_of(redis_server.settings(prefix="damaged")) as store:
            await store.load({"u": {"age": 1.0}}, [event("u", "a", 1)])
            for words in (
                ("SET", "damaged:features:u", "{"),
                ("ZADD", "damaged:events:v", "1", "nonsense"),
                ("ZADD", "damaged:events:w", "1", "0123456789abcdefa\0b\0c"),
            ):
                redis_server.tell(*words)
                user_id = words[1][-1]
                with pytest.raises(CorruptRecord, match=f"record '{user_id}' is corrupt"):
                    await store.get(user_id, LATER, 10)
            redis_server.tell("SET", "damaged:events:x", "no set")
            with pytest.raises(CorruptRecord, match="x is a string"):
                await store.record(numbered([event("y", "a", 1), event("x", "a", 1)]))
            assert await store.get("y", LATER, 1) == UserState(user_id="y")

    asyncio.run(main())


def test_a_load_leaves_nothing_but_users(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with store_of(redis_server.settings(prefix="tidy")) as store:
            users = {f"u{n}": {"age": float(n)} for n in range(450)}
            assert await store.load(users, [event(f"u{n}", "a", n) for n in range(0, 450, 2)]) == 450
            assert (await store.get("u448", LATER, 9)).history.timestamps_ms == (448,)
            assert (await store.get("u449", LATER, 9)).features == {"age": 449.0}
        assert redis_server.tell("EVAL", "return #redis.call('KEYS', 'tidy:staged-*')", "0") == b":0"
        assert redis_server.tell("TTL", "tidy:events:u448") == b":-1"
        assert redis_server.tell("TTL", "tidy:features:u448") == b":-1"

    asyncio.run(main())


def test_a_redis_that_forgot_its_scripts_is_told_them_again(redis_server: RedisServer) -> None:
    async def main() -> None:
        async with store_of(redis_server.settings(prefix="scripts")) as store:
            await store.record(numbered([event("u", "a", 1)]))
            assert redis_server.tell("SCRIPT", "FLUSH") == b"+OK"
            assert (await store.get("u", LATER, 1)).history.item_ids == ("a",)
            assert redis_server.tell("SCRIPT", "FLUSH") == b"+OK"
            assert (await store.record(numbered([event("u", "b", 2)], first=1))).recorded == 1

    asyncio.run(main())
