"""A shard that holds more than fits: calls wait for the load they cause, or are told why they cannot."""

import asyncio
import resource
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from services.on_demand import OnDemandLoads
from services.shard_config import ShardConfig
from services.shard_record import read_record
from services.shard_server import ShardServer
from shards.errors import (
    CorruptBundle,
    DeadlineExceeded,
    Overloaded,
    OversizedBundle,
    Unavailable,
)
from shards.holding import Terms
from shards.release import ModelVersion
from shards.replica import ReplicaState
from tests.services.shard_client import Models, ShardClient, connect
from tests.shards.many_bundles import write_copy

COLD, READY, FAILED = ReplicaState.COLD, ReplicaState.READY, ReplicaState.FAILED
ON_DEMAND = Terms(on_demand=True)
LEXICAL, TOWER, OTHER = (ModelVersion(name, "1") for name in ("lexical", "two_tower", "other"))


async def hold(client: ShardClient, models: Models, *wanted: ModelVersion, terms: Terms = ON_DEMAND) -> None:
    for model in wanted:
        await client.load(model, models.path(model), terms)


def test_the_first_call_loads_and_those_that_come_meanwhile_wait(models: Models, tmp_path: Path) -> None:
    config = ShardConfig(shard_id="s1", state_dir=tmp_path)

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            await hold(client, models, LEXICAL, TOWER)
            await client.wait_for({LEXICAL: COLD, TOWER: COLD})
            calls = [client.retrieve(models.retrieval(model=TOWER)) for _ in range(20)]
            answers = await asyncio.gather(*calls)
            assert all(answer.candidates.item_ids for answer in answers)
            await client.wait_for({LEXICAL: COLD, TOWER: READY})
            replica = (await client.replicas())[TOWER]
            assert replica.requests == 20
            assert replica.memory_bytes > 0
        (_, tower) = read_record(config.record_path).bundles
        assert (tower.model, tower.on_demand, tower.memory_bytes) == (TOWER, True, replica.memory_bytes)
        # After a restart it is cold again, and answers whoever asks.
        async with ShardServer(config) as server, connect(server.address) as client:
            await client.wait_for({LEXICAL: COLD, TOWER: COLD})
            assert (await client.replicas())[TOWER].memory_bytes == replica.memory_bytes
            assert (await client.retrieve(models.retrieval(model=TOWER))).candidates.item_ids

    asyncio.run(main())


def test_bundles_that_do_not_fit_together_take_turns(models: Models, tmp_path: Path) -> None:
    one_bytes = 4 << 20  # Far more than measuring errs by.
    folders = {
        model: write_copy(tmp_path / "models", models.path(TOWER), model.model, padding_bytes=one_bytes)
        for model in (TOWER, OTHER)
    }
    config = ShardConfig(
        shard_id="s1",
        state_dir=tmp_path,
        memory_bytes=one_bytes * 3 // 2,
        min_idle_s=0,
        min_residence_s=0,
    )

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            for model, folder in folders.items():
                await client.load(model, folder, ON_DEMAND)
            for model in (OTHER, TOWER) * 3:
                assert (await client.retrieve(models.retrieval(model=model))).candidates.item_ids
            await client.wait_for({OTHER: COLD, TOWER: READY})
            with pytest.raises(OversizedBundle, match=r"needs 1,024\.0 MiB"):
                await hold(client, models, LEXICAL, terms=Terms(on_demand=True, memory_bytes=1 << 30))

    asyncio.run(main())


def test_a_call_for_which_nothing_may_go_is_told_when_to_come_back(models: Models, tmp_path: Path) -> None:
    config = ShardConfig(shard_id="s1", state_dir=tmp_path, memory_bytes=1 << 20, min_residence_s=60)

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            await hold(client, models, TOWER, terms=Terms(on_demand=True, memory_bytes=1 << 19))
            await hold(client, models, LEXICAL, terms=Terms(on_demand=True, memory_bytes=1 << 20))
            await client.retrieve(models.retrieval(model=TOWER))
            with pytest.raises(Overloaded, match="do not fit beside") as caught:
                await client.retrieve(models.retrieval(model=LEXICAL))
            assert 50 < caught.value.retry_after_s <= 60
            assert (await client.retrieve(models.retrieval(model=TOWER))).candidates.item_ids

    asyncio.run(main())


def test_a_call_waits_for_room_if_it_has_the_time(models: Models, tmp_path: Path) -> None:
    config = ShardConfig(
        shard_id="s1", state_dir=tmp_path, memory_bytes=1 << 20, min_idle_s=0, min_residence_s=1
    )

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            await hold(client, models, TOWER, terms=Terms(on_demand=True, memory_bytes=1 << 19))
            await hold(client, models, LEXICAL, terms=Terms(on_demand=True, memory_bytes=1 << 20))
            await client.retrieve(models.retrieval(model=TOWER))
            assert (await client.retrieve(models.retrieval(model=LEXICAL))).candidates.item_ids
            await client.wait_for({LEXICAL: READY, TOWER: COLD})

    asyncio.run(main())


def test_a_vanished_folder_is_told_until_it_is_given_up_and_others_serve(
    models: Models, tmp_path: Path
) -> None:
    config = ShardConfig(shard_id="s1", state_dir=tmp_path, load_attempts=2, load_backoff_s=0)
    folder = tmp_path / "lexical"
    shutil.copytree(models.path(LEXICAL), folder)

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            await client.load(LEXICAL, folder, ON_DEMAND)
            await hold(client, models, TOWER)
            shutil.rmtree(folder)
            for _ in range(2):
                with pytest.raises(Unavailable, match="No such file or directory"):
                    await client.retrieve(models.retrieval(model=LEXICAL))
            assert (await client.replicas())[LEXICAL].state is FAILED
            with pytest.raises(Unavailable, match=r"failed to load 2 times.*No such file"):
                await client.retrieve(models.retrieval(model=LEXICAL))
            assert (await client.retrieve(models.retrieval(model=TOWER))).candidates.item_ids
            with pytest.raises(CorruptBundle, match="No such file"):
                await client.load(LEXICAL, folder, ON_DEMAND)
            await hold(client, models, LEXICAL)
            assert (await client.retrieve(models.retrieval(model=LEXICAL))).candidates.item_ids

    asyncio.run(main())


async def give_up(client: ShardClient, models: Models) -> None:
    """Have a call begin a load that takes longer than it has."""
    while (await client.replicas())[TOWER].state is COLD:
        # So short a call may end before the shard has even seen it.
        with suppress(DeadlineExceeded):
            await client.retrieve(models.retrieval(model=TOWER), timeout_s=0.01)


def test_a_load_goes_on_when_its_caller_gives_up(models: Models, tmp_path: Path) -> None:
    config = ShardConfig(shard_id="s1", state_dir=tmp_path)

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            await hold(client, models, TOWER)
            await give_up(client, models)
            await client.wait_for({TOWER: READY})

    asyncio.run(main())


def test_a_drain_waits_for_loads(models: Models, tmp_path: Path) -> None:
    config = ShardConfig(shard_id="s1", state_dir=tmp_path)

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            await hold(client, models, TOWER)
            await give_up(client, models)
            assert await client.drain() == 0
            assert (await client.replicas())[TOWER].state in (READY, COLD)
            with pytest.raises(Unavailable, match="draining"):
                await client.retrieve(models.retrieval(model=TOWER))

    asyncio.run(main())


@contextmanager
def no_room_on_disk() -> Iterator[None]:
    """Have every write to a file fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_refuses_changes_and_loses_nothing(models: Models, tmp_path: Path) -> None:
    config = ShardConfig(shard_id="s1", state_dir=tmp_path)

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            await hold(client, models, LEXICAL, terms=Terms())
            with no_room_on_disk():
                with pytest.raises(Unavailable, match=r"record .* cannot be written: File too large"):
                    await hold(client, models, TOWER, terms=Terms())
                with pytest.raises(Unavailable, match="cannot be written"):
                    await client.unload(LEXICAL)
            await client.wait_for({LEXICAL: READY})
            assert (await client.retrieve(models.retrieval(model=LEXICAL))).candidates.item_ids
            await hold(client, models, TOWER, terms=Terms())
            await client.wait_for({LEXICAL: READY, TOWER: READY})
        assert len(read_record(config.record_path).bundles) == 2

    asyncio.run(main())


def test_one_load_however_many_wait_and_its_error_reaches_them_all() -> None:
    started: list[ModelVersion] = []
    go_on = threading.Event()

    def demand(model: ModelVersion) -> None:
        started.append(model)
        go_on.wait(10)
        raise Unavailable("broken")

    async def main() -> None:
        with ThreadPoolExecutor(1) as loader:
            loads = OnDemandLoads(demand, loader)
            waiting = [asyncio.create_task(loads.loaded(TOWER, 10)) for _ in range(3)]
            with pytest.raises(DeadlineExceeded, match=r"two_tower@1 was not loaded within 0\.010 s"):
                await loads.loaded(TOWER, 0.01)
            go_on.set()
            ended = await asyncio.gather(*waiting, return_exceptions=True)
            assert [str(error) for error in ended] == ["broken"] * 3
            await loads.settled(10)
            assert started == [TOWER]
            with pytest.raises(Unavailable, match="broken"):
                await loads.loaded(TOWER, 10)
            assert started == [TOWER, TOWER]

    asyncio.run(main())
