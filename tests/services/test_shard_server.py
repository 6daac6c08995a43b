"""A shard keeps its port and its models over restarts, and one bad bundle harms no other."""

import asyncio
import os
import shutil
import time
from pathlib import Path

import pytest

from services import chassis
from services.shard_config import ShardConfig
from services.shard_record import HeldBundle, ShardRecord, read_record, write_record
from services.shard_server import ShardServer
from shards.errors import CorruptBundle, InvalidInput, MismatchedBundle, NotOwner, Unavailable
from shards.release import ModelVersion, Stage
from shards.replica import ReplicaState
from tests.services.shard_client import Models, ShardClient, connect

READY = ReplicaState.READY


def test_it_comes_back_with_its_port_and_its_models(models: Models, tmp_path: Path) -> None:
    config = ShardConfig(shard_id="s1", state_dir=tmp_path)
    held = dict.fromkeys(models.release.models(), READY)

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            first = await client.shard()
            assert (first.shard_id, first.pid, first.device) == ("s1", os.getpid(), "cpu")
            assert first.memory_bytes > 0
            for model, stage in models.release.models().items():
                replica = await client.load(model, models.path(model))
                assert (replica.state, replica.stage) == (READY, stage)
            await client.wait_for(held)
            before = await client.retrieve(models.retrieval())
            address = server.address
        async with ShardServer(config) as server, connect(server.address) as client:
            assert server.address == address
            await client.wait_for(held)
            assert (await client.shard()).incarnation != first.incarnation
            after = await client.retrieve(models.retrieval())
            assert after.candidates.item_ids == before.candidates.item_ids

    asyncio.run(main())


def test_it_takes_another_port_when_its_own_is_taken(tmp_path: Path) -> None:
    config = ShardConfig(shard_id="s1", state_dir=tmp_path)

    async def main() -> None:
        async with chassis.serve("127.0.0.1:0", register=[], service_names=[]) as thief:
            write_record(config.record_path, ShardRecord(port=thief.port))
            async with ShardServer(config) as server, connect(server.address) as client:
                assert not server.address.endswith(f":{thief.port}")
                assert (await client.shard()).shard_id == "s1"
                assert server.address == f"127.0.0.1:{read_record(config.record_path).port}"

    asyncio.run(main())


def test_a_bad_bundle_is_failed_and_the_others_serve(models: Models, tmp_path: Path) -> None:
    good, bad, missing = (*list(models.release.models())[:2], ModelVersion("gone", "1"))
    broken = tmp_path / "broken"
    shutil.copytree(models.path(bad), broken)
    next(broken.glob("*.parquet")).write_bytes(b"altered")
    config = ShardConfig(shard_id="s1", state_dir=tmp_path)
    folders = {missing: tmp_path / "gone", bad: broken, good: models.path(good)}
    bundles = tuple(
        HeldBundle(model=model, stage=Stage.RETRIEVAL, path=path) for model, path in folders.items()
    )
    write_record(config.record_path, ShardRecord(bundles=bundles))

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            failed = ReplicaState.FAILED
            await client.wait_for({missing: failed, bad: failed, good: READY})
            replica = (await client.replicas())[bad]
            assert ".parquet" in replica.error
            assert "manifest.json" in (await client.replicas())[missing].error
            with pytest.raises(Unavailable, match="failed"):
                await client.retrieve(models.retrieval(model=bad))
            with pytest.raises(NotOwner):
                await client.retrieve(models.retrieval(model=missing))
            assert (await client.retrieve(models.retrieval(model=good))).candidates.item_ids

    asyncio.run(main())
    assert read_record(config.record_path).bundles == bundles


def test_a_refused_load_is_told_and_not_recorded(models: Models, tmp_path: Path) -> None:
    model = models.release.channels[0].model
    config = ShardConfig(shard_id="s1", state_dir=tmp_path)

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            with pytest.raises(CorruptBundle) as caught:
                await client.load(model, tmp_path / "nowhere")
            assert caught.value.file == "manifest.json"
            with pytest.raises(MismatchedBundle):
                await client.load(ModelVersion(model.model, "other"), models.path(model))
            with pytest.raises(InvalidInput) as invalid:
                await client.load(ModelVersion("", ""), Path())
            assert [v.field for v in invalid.value.violations] == ["model.model", "model.version"]

    asyncio.run(main())
    assert read_record(config.record_path).bundles == ()


def test_an_unloaded_model_names_its_owner(models: Models, tmp_path: Path) -> None:
    model = models.release.channels[0].model
    config = ShardConfig(shard_id="s1", state_dir=tmp_path)

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            await client.load(model, models.path(model))
            await client.unload(model, owner="s2", generation=9)
            with pytest.raises(NotOwner) as caught:
                await client.retrieve(models.retrieval())
            assert (caught.value.owner, caught.value.generation) == ("s2", 9)
            await client.unload(model, owner="s2", generation=9)
            assert await client.replicas() == {}

    asyncio.run(main())
    assert read_record(config.record_path).bundles == ()


def test_a_damaged_record_starts_an_empty_shard(tmp_path: Path) -> None:
    config = ShardConfig(shard_id="s1", state_dir=tmp_path)
    config.record_path.parent.mkdir()
    config.record_path.write_text("{")

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            assert await client.replicas() == {}

    asyncio.run(main())
    assert read_record(config.record_path).port > 0


@pytest.mark.parametrize(
    "wrong",
    [
        {"shard_id": ""},
        {"shard_id": "a/b"},
        {"workers": 0},
        {"max_queue": -1},
        {"memory_bytes": -1},
        {"load_attempts": 0},
        {"min_idle_s": -1},
    ],
)
def test_a_config_must_make_sense(wrong: dict[str, str | int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must be"):
        ShardConfig(**{"shard_id": "s1", "state_dir": tmp_path} | wrong)  # type: ignore[arg-type]


def test_it_tells_its_node_and_its_room(tmp_path: Path) -> None:
    config = ShardConfig(
        shard_id="s1", state_dir=tmp_path, node="n1", memory_bytes=1 << 30, gpu_memory_bytes=7
    )

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            told = await client.shard()
            assert (told.node, told.capacity_bytes, told.gpu_capacity_bytes) == ("n1", 1 << 30, 7)
            assert told.recycle_reason == ""

    asyncio.run(main())


def test_a_leak_is_told_until_it_is_gone(tmp_path: Path) -> None:
    config = ShardConfig(shard_id="s1", state_dir=tmp_path, leak_limit_bytes=64 << 20, leak_patience_s=0.05)

    async def reason(client: ShardClient, *, leaks: bool) -> str:
        give_up = time.monotonic() + 30
        while bool(told := (await client.shard()).recycle_reason) != leaks:
            assert time.monotonic() < give_up
        return told

    async def main() -> None:
        async with ShardServer(config) as server, connect(server.address) as client:
            assert await reason(client, leaks=False) == ""
            leak = bytearray(b"x" * (256 << 20))
            assert "MiB more memory than its bundles account for, 64 MiB allowed" in await reason(
                client, leaks=True
            )
            leak.clear()
            await reason(client, leaks=False)

    asyncio.run(main())
