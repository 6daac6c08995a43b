import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from protos.headrace.v1 import cluster_service_pb2
from router.placement_cache import read_cache, write_cache
from router.placement_watch import PlacementWatch
from router.routing_table import RoutingTable
from services.backoff import Backoff
from services.codec import placement_to_proto
from shards.errors import Unavailable
from shards.placement import Assignment, Placement
from shards.release import ModelVersion, Release, ReleaseChannel, Stage
from tests.router.scripted_controller import ScriptedController

WORDS = ModelVersion("words", "1")
FIRST = Placement(
    generation=1,
    endpoints={"s1": "h:1"},
    assignments={WORDS: Assignment(model=WORDS, stage=Stage.RETRIEVAL, shard_ids=("s1",))},
    releases={
        "gifts": Release(
            surface="gifts", version="r1", channels=(ReleaseChannel(name="lexical", model=WORDS),)
        )
    },
)


def message(generation: int) -> cluster_service_pb2.Placement:
    return placement_to_proto(replace(FIRST, generation=generation))


class Following:
    """A watch that runs, and what it has seen."""

    def __init__(self, controller: str, cache_path: Path | None) -> None:
        self.generations: list[int] = []
        self._news = asyncio.Condition()
        self.watch = PlacementWatch(
            controller=controller,
            cache_path=cache_path,
            on_change=self._note,
            rng=random.Random(1),
            backoff=Backoff(base_s=0.01, cap_s=0.05),
        )

    async def _note(self, table: RoutingTable) -> None:
        async with self._news:
            self.generations.append(table.generation)
            self._news.notify_all()

    async def reaches(self, generation: int) -> None:
        async with asyncio.timeout(10), self._news:
            await self._news.wait_for(lambda: generation in self.generations)


@asynccontextmanager
async def following(controller: str, cache_path: Path | None = None) -> AsyncIterator[Following]:
    follower = Following(controller, cache_path)
    task = asyncio.create_task(follower.watch.run())
    yield follower
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


def test_each_new_placement_is_used_and_remembered(tmp_path: Path) -> None:
    async def main() -> None:
        cache = tmp_path / "state" / "placement.json"
        async with ScriptedController(message(1)) as controller:
            async with following(controller.address, cache) as follower:
                await follower.reaches(1)
                assert follower.watch.newest().placement == FIRST
                await controller.publish(message(2))
                await follower.reaches(2)
                await controller.publish(message(3))
                await follower.reaches(3)
            # Cancelling may cut the writing of the last one short, never that of those before it.
            cached = await read_cache(cache)
        assert cached is not None
        assert cached.generation in (2, 3)
        assert follower.generations == [1, 2, 3]

    asyncio.run(main())


def test_generations_never_go_back() -> None:
    async def main() -> None:
        async with (
            ScriptedController(message(5), message(5), message(4), message(6)) as controller,
            following(controller.address) as follower,
        ):
            await follower.reaches(6)
        assert follower.generations == [5, 6]
        assert controller.known_generations == [0, 5]

    asyncio.run(main())


def test_a_controller_that_lost_its_history_is_told_ours(tmp_path: Path) -> None:
    async def main() -> None:
        cache = tmp_path / "placement.json"
        await write_cache(cache, replace(FIRST, generation=7))
        async with ScriptedController() as forgetful, following(forgetful.address, cache) as follower:
            await follower.reaches(7)
            await forgetful.publish(message(1))
            await forgetful.publish(message(8))
            await follower.reaches(8)
        assert forgetful.known_generations == [0, 7]
        assert follower.generations == [7, 8]

    asyncio.run(main())


def test_a_placement_that_makes_no_sense_is_ignored() -> None:
    async def main() -> None:
        broken = message(2)
        broken.releases[0].channels[0].k = -1
        async with (
            ScriptedController(message(1), broken, message(3)) as controller,
            following(controller.address) as follower,
        ):
            await follower.reaches(3)
        assert follower.generations == [1, 3]

    asyncio.run(main())


def test_a_controller_that_returns_is_followed_again() -> None:
    async def main() -> None:
        async with ScriptedController() as gone:
            address = gone.address
        async with following(address) as follower:
            async with ScriptedController(message(1), address=address):
                await follower.reaches(1)
            assert follower.watch.newest().generation == 1
            async with ScriptedController(message(2), address=address) as second:
                await follower.reaches(2)
        assert second.known_generations == [1]

    asyncio.run(main())


def test_without_a_controller_the_cache_decides(tmp_path: Path) -> None:
    async def main() -> None:
        cache = tmp_path / "placement.json"
        await write_cache(cache, replace(FIRST, generation=7))
        async with ScriptedController() as gone:
            pass
        for controller in ("", gone.address):
            async with following(controller, cache) as follower:
                await follower.reaches(7)

    asyncio.run(main())


def test_a_silent_controller_does_not_keep_a_router_from_its_cache(tmp_path: Path) -> None:
    async def main() -> None:
        cache = tmp_path / "placement.json"
        await write_cache(cache, replace(FIRST, generation=7))
        async with ScriptedController() as silent, following(silent.address, cache) as follower:
            await follower.reaches(7)
            await silent.publish(message(8))
            await follower.reaches(8)
        assert follower.generations == [7, 8]

    asyncio.run(main())


def test_a_controller_that_answers_is_believed_before_the_cache(tmp_path: Path) -> None:
    async def main() -> None:
        cache = tmp_path / "placement.json"
        await write_cache(cache, replace(FIRST, generation=7))
        async with (
            ScriptedController(message(9)) as controller,
            following(controller.address, cache) as follower,
        ):
            await follower.reaches(9)
        assert follower.generations == [9]

    asyncio.run(main())


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\x00", b'{"generation": "x"}', b'{"releases": [{}]}'])
def test_a_damaged_cache_is_ignored_and_replaced(tmp_path: Path, content: bytes) -> None:
    async def main() -> None:
        cache = tmp_path / "placement.json"
        cache.write_bytes(content)
        assert await read_cache(cache) is None
        await write_cache(cache, FIRST)
        assert await read_cache(cache) == FIRST

    asyncio.run(main())
    assert [path.name for path in tmp_path.iterdir()] == ["placement.json"]


def test_a_cache_that_cannot_be_read_is_none(tmp_path: Path) -> None:
    assert asyncio.run(read_cache(tmp_path)) is None
    assert asyncio.run(read_cache(tmp_path / "absent.json")) is None


def test_a_cache_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "file").write_text("not a folder")
        cache = tmp_path / "file" / "placement.json"
        async with (
            ScriptedController(message(1), message(2)) as controller,
            following(controller.address, cache) as follower,
        ):
            await follower.reaches(2)

    asyncio.run(main())


def test_before_the_first_placement_nothing_is_available() -> None:
    async def main() -> None:
        async with ScriptedController() as silent, following(silent.address) as follower:
            with pytest.raises(Unavailable, match="no placement is known yet"):
                follower.watch.newest()

    asyncio.run(main())
