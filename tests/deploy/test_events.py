"""Events through routers that share a port and a store, and through a whole cluster."""

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from router.client import Event, HeadraceClient, SearchResult
from services.lmdb_user_store import LmdbUserStore
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.deploy.router_processes import RouterProcesses, router_processes
from tests.deploy.running_cluster import RunningCluster, make_workspace, run, running_cluster
from tests.deploy.small_cluster import shop
from tests.router.memory_stages import ranked
from tests.router.running_router import placed
from tests.router.scripted_shard import ScriptedShard
from tests.services.redis_server import RedisServer
from tests.shards.bundles import NOW_MS, SURFACE
from training.datasets import parquet

RELEASE = Release(
    surface="gifts",
    version="r1",
    channels=(ReleaseChannel(name="lexical", model=ModelVersion("words", "1")),),
    retrieval_budget_ms=5000,
)
LATER = 10**15


@asynccontextmanager
async def routers_of(folder: Path, shard: ScriptedShard) -> AsyncIterator[RouterProcesses]:
    placement = placed([RELEASE], {"words@1": ["s1"]}, {"s1": shard.address})
    async with router_processes(placement, folder) as routers:
        yield routers


class Shopper:
    """A user who does one thing after the other, each by a connection of its own, and searches after each."""

    def __init__(self, user_id: str, target: str, shard: ScriptedShard) -> None:
        self.user_id = user_id
        self._target = target
        self._shard = shard
        self.did: list[str] = []
        self.counted = 0

    async def shop(self, enough: asyncio.Event) -> None:
        while not enough.is_set():
            item_id = f"i{len(self.did)}"
            event = Event(
                user_id=self.user_id, item_id=item_id, action="click", event_id=f"{self.user_id} {item_id}"
            )
            async with self._client() as client:
                self.counted += (await client.record_events([event])).recorded
            self.did.append(item_id)
            async with self._client() as client:
                # The kernel has given this connection to whichever router.
                assert (await client.search("gifts", "mug", user_id=self.user_id)).complete
            assert self._seen() == tuple(self.did)[-200:]

    def _client(self) -> HeadraceClient:
        return HeadraceClient(self._target, timeout_s=60.0, max_attempts=100)

    def _seen(self) -> tuple[str, ...]:
        """Return the history of this user that reached the shard last."""
        users = (call.context.user for call in reversed(self._shard.calls))
        return next(user.history.item_ids for user in users if user.user_id == self.user_id)


def test_routers_that_are_killed_lose_no_event_and_hide_none(tmp_path: Path) -> None:
    async def main() -> list[Shopper]:
        async with (
            ScriptedShard("s1", {"words@1": ranked("a")}) as shard,
            routers_of(tmp_path, shard) as routers,
        ):
            running = [await routers.start(), await routers.start()]
            shoppers = [Shopper(f"u{n}", routers.target, shard) for n in range(4)]
            enough = asyncio.Event()
            async with asyncio.timeout(200), asyncio.TaskGroup() as group:
                shopping = [group.create_task(shopper.shop(enough)) for shopper in shoppers]
                for _ in range(3):
                    wanted = sum(len(shopper.did) for shopper in shoppers) + 40
                    while sum(len(shopper.did) for shopper in shoppers) < wanted:
                        await asyncio.wait(shopping, timeout=0.05)
                    killed = running.pop(0)
                    killed.send_signal(signal.SIGKILL)
                    await killed.wait()
                    running.append(await routers.start())
                enough.set()
            return shoppers

    shoppers = asyncio.run(main())
    with LmdbUserStore.open(tmp_path / "users.lmdb") as store:
        for shopper in shoppers:
            history = asyncio.run(store.get(shopper.user_id, LATER, 100_000)).history
            # Everything that was acknowledged, and nothing twice, though a router may die between the two.
            assert history.item_ids == tuple(shopper.did)
            assert shopper.counted <= len(shopper.did)


@pytest.fixture(scope="module", params=["lmdb", "redis"])
def cluster(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[RunningCluster, RedisServer | None]]:
    workspace = make_workspace(tmp_path_factory.mktemp("events"))
    parquet.save(shop(), workspace.root / "data")
    if request.param == "lmdb":
        with running_cluster(workspace) as running:
            yield running, None
        return
    with (
        RedisServer(tmp_path_factory.mktemp("redis")) as server,
        running_cluster(workspace, "--user-store", server.url) as running,
    ):
        yield running, server


async def search(address: str, user_id: str, *, explain: bool = False) -> SearchResult:
    async with HeadraceClient(address, timeout_s=20.0) as client:
        return await client.search(SURFACE, "teapot", user_id=user_id, explain=explain)


async def found(address: str, user_id: str) -> tuple[list[str], list[str]]:
    """Return what the history of a user brings: the items themselves, and those next to them in the table.

    Of a complete answer: each router finds out for itself that a store which was away is back.
    """
    async with asyncio.timeout(60):
        while not (result := await search(address, user_id, explain=True)).complete:
            pass
    assert result.explanation
    channels = result.explanation.channels
    return channels["again"].item_ids, channels["neighbours"].item_ids


@pytest.mark.cluster
def test_the_next_search_of_a_cluster_shows_what_a_user_did(
    cluster: tuple[RunningCluster, RedisServer | None], tmp_path: Path
) -> None:
    running, _ = cluster
    where = ("--workspace", str(running.workspace.root))
    assert asyncio.run(found(running.router, "new")) == ([], [])
    before = asyncio.run(search(running.router, "new"))
    # The release answers for a moment of its data, so that is when the user does something.
    at = "2010-10-25T09:00:00Z"
    told = ("--user", "new", "--item", "item-150", "--action", "purchase", "--at", at, "--id", "first")
    done = run("events", "record", *told, *where)
    assert (done.returncode, done.stdout) == (0, "1 recorded, 0 known already\n"), done.stderr
    after = asyncio.run(search(running.router, "new"))
    assert [(item.item_id, item.score) for item in after.items] != [
        (item.item_id, item.score) for item in before.items
    ]
    assert asyncio.run(found(running.router, "new")) == (["item-150"], ["item-151", "item-152"])
    assert asyncio.run(found(running.router, "other")) == ([], [])

    lines = tmp_path / "events.jsonl"
    events = [
        {
            "event_id": f"e{n}",
            "user_id": "many",
            "item_id": f"item-{n:03d}",
            "action": "click",
            "timestamp": NOW_MS - 1 - n,
        }
        for n in range(1_500)
    ]
    first = {
        "event_id": "first",
        "user_id": "new",
        "item_id": "item-150",
        "action": "purchase",
        "timestamp": at,
    }
    lines.write_text("\n".join(map(json.dumps, [first, *events])))
    done = run("events", "record", str(lines), "--json", "--timeout-s", "30", *where)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"recorded": 1_500, "duplicates": 1}
    assert "item-000" in asyncio.run(found(running.router, "many"))[0]


@pytest.mark.cluster
def test_users_of_a_dataset_are_loaded_beside_a_running_cluster(
    cluster: tuple[RunningCluster, RedisServer | None],
) -> None:
    running, server = cluster
    root = running.workspace.root
    elsewhere = ("--user-store", server.url) if server else ()
    done = run("users", "load", str(root / "data"), "--workspace", str(root), *elsewhere)
    assert (done.returncode, done.stdout) == (0, "12 users\n"), done.stderr
    assert asyncio.run(found(running.router, "u1"))[0]


@pytest.mark.cluster
@pytest.mark.parametrize("cluster", ["redis"], indirect=True)
def test_a_cluster_searches_on_while_its_redis_is_killed(
    cluster: tuple[RunningCluster, RedisServer | None],
) -> None:
    running, server = cluster
    assert server

    async def main() -> None:
        async with HeadraceClient(running.router, timeout_s=20.0) as client:
            event = Event(user_id="hardy", item_id="item-160", action="click", timestamp_ms=NOW_MS - 5)
            await client.record_events([event])
            assert (await found(running.router, "hardy"))[0] == ["item-160"]
            server.kill()
            gaps = [gap for _ in range(20) for gap in (await search(running.router, "hardy")).gaps]
            assert len(gaps) == 20
            assert {(gap.stage, gap.channel) for gap in gaps} == {("unspecified", "")}
            server.start()
            late = Event(user_id="hardy", item_id="item-170", action="click", timestamp_ms=NOW_MS - 4)
            await client.record_events([event, late])
            assert sorted((await found(running.router, "hardy"))[0]) == ["item-160", "item-170"]

    asyncio.run(main())
