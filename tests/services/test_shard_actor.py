"""A shard under Ray: killed, it comes back at its address with its models, by itself."""

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from services.shard_actor import start_shard_actor
from services.shard_config import ShardConfig
from services.shard_resources import ShardResources
from shards.replica import ReplicaState
from tests.services.ray_nodes import ray_nodes
from tests.services.shard_client import Models, connect

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_nodes(num_cpus=2):
        yield


@pytest.mark.usefixtures("cluster")
def test_a_killed_shard_comes_back_with_its_models(models: Models, tmp_path: Path) -> None:
    config = ShardConfig(shard_id="shard-1", state_dir=tmp_path)
    actor = start_shard_actor(config, ShardResources(num_cpus=0.5))
    address = str(ray.get(actor.address.remote()))
    held = dict.fromkeys(models.release.models(), ReplicaState.READY)

    async def load() -> int:
        async with connect(address) as client:
            for model in held:
                await client.load(model, models.path(model))
            await client.retrieve(models.retrieval())
            return (await client.shard()).pid

    async def comes_back() -> int:
        # Nobody but Ray does anything: the same address answers again, with every model.
        async with connect(address) as client:
            await client.wait_for(held, timeout_s=120)
            await client.retrieve(models.retrieval())
            return (await client.shard()).pid

    pid = asyncio.run(load())
    assert pid == ray.get(actor.ping.remote()) != os.getpid()
    os.kill(pid, signal.SIGKILL)
    assert asyncio.run(comes_back()) != pid
    assert ray.get(start_shard_actor(config).address.remote()) == address

    ray.get(actor.stop.remote())
    ray.kill(actor, no_restart=True)
