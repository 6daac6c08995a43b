import asyncio
import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from router.placement_cache import read_cache
from router.placement_source import ConsulPlacementSource
from router.placement_watch import PlacementWatch
from router.router_config import RouterConfig
from router.router_server import Router
from router.routing_table import RoutingTable
from services.consul_client import ConsulClient
from services.consul_placement_store import ConsulPlacementStore
from shards.placement import Assignment, Placement
from shards.release import ModelVersion, Release, ReleaseChannel, Stage
from tests.services.consul_agent import ConsulAgent

WORDS = ModelVersion("words", "1")
FIRST = Placement(
    generation=1,
    endpoints={"s1": "127.0.0.1:1"},
    assignments={WORDS: Assignment(model=WORDS, stage=Stage.RETRIEVAL, shard_ids=("s1",))},
    releases={
        "gifts": Release(
            surface="gifts", version="r1", channels=(ReleaseChannel(name="lexical", model=WORDS),)
        )
    },
)


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[ConsulAgent]:
    with ConsulAgent(tmp_path / "consul") as started:
        yield started


async def commit(agent: ConsulAgent, expected_generation: int, generation: int) -> None:
    async with ConsulClient(agent.settings("headrace")) as client:
        store = ConsulPlacementStore(client)
        await store.commit(expected_generation, replace(FIRST, generation=generation))


def test_a_router_follows_consul_and_starts_from_its_cache_when_consul_is_gone(
    agent: ConsulAgent, tmp_path: Path
) -> None:
    config = RouterConfig(consul=agent.settings("headrace"), cache_path=tmp_path / "placement.json")

    async def main() -> None:
        async with asyncio.timeout(15), Router(config) as router:
            await commit(agent, 0, 1)
            assert (await router.ready()).generation == 1
            while await read_cache(tmp_path / "placement.json") is None:
                pass
        agent.kill()
        async with asyncio.timeout(15), Router(config) as restarted:
            assert (await restarted.ready()).placement == FIRST

    asyncio.run(main())


def test_a_watch_goes_on_past_a_consul_that_forgot_everything(agent: ConsulAgent, tmp_path: Path) -> None:
    cache = tmp_path / "placement.json"
    generations: list[int] = []
    news = asyncio.Condition()

    async def note(table: RoutingTable) -> None:
        async with news:
            generations.append(table.generation)
            news.notify_all()

    async def reaches(generation: int) -> None:
        async with asyncio.timeout(15), news:
            await news.wait_for(lambda: generation in generations)

    async def main() -> None:
        source = ConsulPlacementSource(agent.settings("headrace"), random.Random(1))
        watch = PlacementWatch(
            controller="", cache_path=cache, on_change=note, rng=random.Random(1), source=source
        )
        running = asyncio.create_task(watch.run())
        await commit(agent, 0, 5)
        await reaches(5)
        await asyncio.to_thread(agent.restart)
        assert watch.newest().generation == 5
        await commit(agent, 0, 3)
        await commit(agent, 3, 6)
        await reaches(6)
        running.cancel()
        await asyncio.wait([running])
        assert generations == [5, 6]
        cached = await read_cache(cache)
        assert cached is not None
        assert cached.generation in (5, 6)

    asyncio.run(main())
