import asyncio
import gzip
import random
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services.consul_client import ConsulClient
from services.consul_placement_store import VALUE_LIMIT_BYTES, ConsulPlacementStore, encode_value
from services.mirrored_placement_store import MirroredPlacementStore
from services.placement_store import Committed, Conflict, FilePlacementStore
from shards.errors import CorruptRecord, InvalidInput, Unavailable
from shards.placement import Assignment, Placement
from shards.release import ModelVersion, Stage
from tests.services.consul_agent import ConsulAgent


def placement(
    generation: int, models: int = 1, shards: int = 1, entropy: random.Random | None = None
) -> Placement:
    versions = [f"{entropy.getrandbits(256):x}" if entropy else "1" for _ in range(models)]
    placed = [ModelVersion(f"model-{n}", version) for n, version in enumerate(versions)]
    return Placement(
        generation=generation,
        endpoints={f"shard-{n}": f"127.0.0.1:{4000 + n}" for n in range(shards)},
        assignments={
            model: Assignment(model=model, stage=Stage.RANKING, shard_ids=(f"shard-{n % shards}",))
            for n, model in enumerate(placed)
        },
    )


@asynccontextmanager
async def opened(agent: ConsulAgent, prefix: str, **settings: object) -> AsyncIterator[ConsulPlacementStore]:
    async with ConsulClient(agent.settings(prefix, **settings)) as client:
        yield ConsulPlacementStore(client)


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[ConsulAgent]:
    """An agent to be killed; it forgets everything."""
    with ConsulAgent(tmp_path / "consul") as agent:
        yield agent


@pytest.fixture
def durable(tmp_path: Path) -> Iterator[ConsulAgent]:
    """An agent that keeps its state on disk."""
    with ConsulAgent(tmp_path / "consul", data=tmp_path / "data") as agent:
        yield agent


class Watching:
    """What a watch has told so far."""

    def __init__(self) -> None:
        self.generations: list[int] = []
        self._news = asyncio.Condition()

    async def reaches(self, generation: int) -> None:
        async with asyncio.timeout(15), self._news:
            await self._news.wait_for(lambda: generation in self.generations)

    async def run(self, store: ConsulPlacementStore, known_generation: int) -> None:
        async for told in store.watch(known_generation, random.Random(3)):
            async with self._news:
                self.generations.append(told.generation)
                self._news.notify_all()


@asynccontextmanager
async def watching(store: ConsulPlacementStore, known_generation: int = 0) -> AsyncIterator[Watching]:
    watch = Watching()
    task = asyncio.create_task(watch.run(store, known_generation))
    yield watch
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


def test_two_committers_race_and_exactly_one_wins_each_generation(consul_agent: ConsulAgent) -> None:
    async def compete(store: ConsulPlacementStore, name: str) -> list[int]:
        won = []
        for generation in range(1, 21):
            wanted = replace(placement(generation), endpoints={name: "h:1"})
            outcome = await store.commit(generation - 1, wanted)
            if isinstance(outcome, Committed):
                won.append(generation)
            else:
                while outcome.current.generation < generation:
                    outcome = Conflict(await store.read())
        return won

    async def main() -> None:
        async with opened(consul_agent, "race") as first, opened(consul_agent, "race") as second:
            wins = await asyncio.gather(compete(first, "a"), compete(second, "b"))
            assert (await first.read()).generation == 20
        assert sorted(wins[0] + wins[1]) == list(range(1, 21))

    asyncio.run(main())


def test_a_watch_tells_what_is_newer_than_known(consul_agent: ConsulAgent) -> None:
    async def main() -> None:
        async with opened(consul_agent, "watch") as store:
            async with watching(store) as all_of_it, watching(store, known_generation=2) as later:
                await store.commit(0, placement(1))
                await all_of_it.reaches(1)
                await store.commit(1, placement(2))
                await all_of_it.reaches(2)
                await store.commit(2, placement(3))
                await all_of_it.reaches(3)
                await later.reaches(3)
            assert all_of_it.generations == [1, 2, 3]
            assert later.generations == [3]

    asyncio.run(main())


def test_a_cancelled_watch_ends_at_once(consul_agent: ConsulAgent) -> None:
    async def main() -> None:
        async with opened(consul_agent, "cancel", wait_s=300.0) as store, asyncio.timeout(5):
            await store.commit(0, placement(1))
            async with watching(store) as watch:
                await watch.reaches(1)

    asyncio.run(main())


def test_an_agent_killed_under_a_watch_and_empty_afterwards(mortal: ConsulAgent) -> None:
    async def main() -> None:
        async with opened(mortal, "killed", wait_s=60.0) as store, watching(store) as watch:
            for generation in range(1, 6):
                await store.commit(generation - 1, placement(generation))
            await watch.reaches(5)
            mortal.kill()
            with pytest.raises(Unavailable, match="does not answer"):
                await store.read()
            with pytest.raises(Unavailable, match="does not answer"):
                await store.commit(5, placement(6))
            await asyncio.to_thread(mortal.start)
            # Its indexes have begun anew, below those that the watch knew.
            assert await store.read() == Placement()
            assert await store.commit(0, placement(3)) == Committed(placement(3))
            assert await store.commit(3, placement(6)) == Committed(placement(6))
            await watch.reaches(6)
        assert sorted(set(watch.generations)) == watch.generations, "3 is never told again"

    asyncio.run(main())


def test_a_restored_snapshot_takes_the_index_back_under_a_watch(
    durable: ConsulAgent, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with opened(durable, "restored", wait_s=0.5) as store, watching(store) as watch:
            await store.commit(0, placement(1))
            saved = await asyncio.to_thread(durable.request, "GET", "/v1/snapshot")
            for generation in range(2, 6):
                await store.commit(generation - 1, placement(generation))
            await watch.reaches(5)
            await asyncio.to_thread(durable.request, "PUT", "/v1/snapshot", saved)
            assert await store.read() == placement(1)
            async with asyncio.timeout(10):
                while "Consul's index went back" not in caplog.text:
                    await store.read()
            await store.commit(1, placement(6))
            await watch.reaches(6)
        assert watch.generations[-2:] == [5, 6]

    asyncio.run(main())


def test_what_is_committed_survives_the_agent(durable: ConsulAgent) -> None:
    async def main() -> None:
        async with opened(durable, "kept") as store, watching(store) as watch:
            await store.commit(0, placement(1))
            await watch.reaches(1)
            await asyncio.to_thread(durable.restart)
            assert await store.read() == placement(1)
            await store.commit(1, placement(2))
            await watch.reaches(2)
        assert watch.generations == [1, 2]

    asyncio.run(main())


def test_a_hanging_agent_is_unavailable_in_time(mortal: ConsulAgent) -> None:
    async def main() -> None:
        async with opened(mortal, "hangs", timeout_s=0.3) as store:
            await store.commit(0, placement(1))
            mortal.hang()
            with pytest.raises(Unavailable, match="does not answer"):
                await store.read()
            mortal.wake()
            assert await store.read() == placement(1)

    asyncio.run(main())


def test_the_placement_is_kept_as_json_and_compressed_only_where_it_must(consul_agent: ConsulAgent) -> None:
    small, large = placement(1, models=10), placement(2, models=20_000, shards=100)

    async def main() -> None:
        async with opened(consul_agent, "sizes") as store:
            await store.commit(0, small)
            assert await asyncio.to_thread(raw_value, consul_agent, "sizes") == encode_value(small)
            await store.commit(1, large)
            packed = await asyncio.to_thread(raw_value, consul_agent, "sizes")
            assert len(packed) <= VALUE_LIMIT_BYTES < len(gzip.decompress(packed))
            assert await store.read() == large

    asyncio.run(main())
    assert encode_value(small).startswith(b"{\n")


def raw_value(agent: ConsulAgent, prefix: str) -> bytes:
    return agent.request("GET", f"/v1/kv/{prefix}/placement?raw")


def test_a_placement_too_big_for_consul_is_refused_with_its_size(consul_agent: ConsulAgent) -> None:
    huge = placement(2, models=20_000, entropy=random.Random(5))

    async def main() -> None:
        async with opened(consul_agent, "huge") as store:
            await store.commit(0, placement(1))
            with pytest.raises(
                InvalidInput, match=r"placement: is too big for Consul: \d+ bytes, \d+ compressed"
            ):
                await store.commit(1, huge)
            assert await store.read() == placement(1)

    asyncio.run(main())


@pytest.mark.parametrize("damage", [b"", b"{", b"\x1f\x8b\x08garbage", gzip.compress(b"{", mtime=0)[:-4]])
def test_a_damaged_value_is_named_and_left_alone(consul_agent: ConsulAgent, damage: bytes) -> None:
    async def main() -> None:
        async with opened(consul_agent, "damaged") as store:
            await asyncio.to_thread(consul_agent.request, "PUT", "/v1/kv/damaged/placement", damage)
            with pytest.raises(CorruptRecord, match="Consul: record 'damaged/placement' is corrupt"):
                await store.read()
            with pytest.raises(CorruptRecord):
                await store.commit(0, placement(1))
            assert await asyncio.to_thread(raw_value, consul_agent, "damaged") == damage

    asyncio.run(main())


def test_a_controller_starts_from_its_mirror_and_gives_an_emptied_consul_its_placement_back(
    mortal: ConsulAgent, tmp_path: Path
) -> None:
    async def main() -> None:
        async with opened(mortal, "mirror") as primary:
            store = MirroredPlacementStore(primary, FilePlacementStore(tmp_path / "placement.json"))
            await store.commit(0, placement(1))
            await store.commit(1, placement(2))
            mortal.kill()
            assert await store.read() == placement(2)
            with pytest.raises(Unavailable):
                await store.commit(2, placement(3))
            await asyncio.to_thread(mortal.start)
            assert await primary.read() == Placement()
            assert await store.commit(2, placement(3)) == Committed(placement(3))
            await asyncio.to_thread(mortal.restart)
            assert await store.read() == placement(3)
            assert await primary.read() == placement(3)

    asyncio.run(main())
