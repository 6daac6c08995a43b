"""Shards in a real Ray: started once, found again, replaced even when they hang, ended for good."""

import asyncio
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from ray.experimental.internal_kv import _internal_kv_get

from services.shard_config import ShardConfig
from services.shard_host import RayShardHost
from services.shard_link import ShardLink
from services.shard_resources import ShardResources
from shards.cluster_events import ShardSeen, ShardSilent
from shards.errors import Unavailable
from tests.services.ray_nodes import ray_nodes
from tests.services.running_controller import eventually

pytestmark = pytest.mark.cluster

_NO_CPU = ShardResources(num_cpus=0)
_ROOM_ASKED_FOR = b"autoscaler_resource_request"
"""Where in Ray's own store the request lies until an autoscaler takes it up."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    with ray_nodes(num_cpus=2, num_gpus=1, labels={"disk": "fast"}):
        yield


def host_of(tmp_path: Path, resources: ShardResources = _NO_CPU) -> RayShardHost:
    return RayShardHost(lambda shard_id: ShardConfig(shard_id=shard_id, state_dir=tmp_path), resources)


async def serving(host: RayShardHost, shard_id: str) -> str:
    """Return the shard's address as soon as it serves."""
    found: list[str] = []

    async def serves() -> bool:
        try:
            found.append(await host.address(shard_id))
        except Unavailable:
            return False
        return True

    await eventually(serves, within_s=120)
    return found[0]


def gpus_taken() -> float:
    left: dict[str, float] = ray.available_resources()  # type: ignore[no-untyped-call]
    return 1 - left.get("GPU", 0.0)


@pytest.mark.usefixtures("cluster")
def test_a_shard_is_started_once_and_replaced_when_it_hangs(tmp_path: Path) -> None:
    async def main() -> None:
        host = host_of(tmp_path)
        with pytest.raises(Unavailable, match="shard-0 does not run"):
            await host.address("shard-0")
        await host.start("shard-0")
        link = ShardLink("shard-0", "", host)
        seen: list[ShardSeen] = []

        async def another() -> bool:
            looked = await link.look()
            known = {shard.incarnation for shard in seen}
            if isinstance(looked, ShardSeen) and looked.incarnation not in known:
                seen.append(looked)
                return True
            return False

        await eventually(another, within_s=120)
        # A controller that is started anew finds the same shard.
        await host_of(tmp_path).start("shard-0")
        assert await host_of(tmp_path).address("shard-0") == seen[0].address

        os.kill(seen[0].pid, signal.SIGSTOP)
        assert await link.look() == ShardSilent(shard_id="shard-0", refused=False)
        await host.restart("shard-0")
        await eventually(another, within_s=120)
        assert seen[1].pid != seen[0].pid
        assert seen[1].address == seen[0].address
        await link.close()
        await host.stop("shard-0")

    asyncio.run(main())


@pytest.mark.usefixtures("cluster")
def test_shards_beyond_those_at_the_start_come_and_go_whatever_cpus_there_are(tmp_path: Path) -> None:
    async def main() -> None:
        host = host_of(tmp_path)
        shard_ids = [f"shard-{n}" for n in range(4)]
        for shard_id in shard_ids:
            await host.start(shard_id)
        addresses = [await serving(host, shard_id) for shard_id in shard_ids]
        assert len(set(addresses)) == 4
        await host.stop("shard-3")
        await host.stop("shard-3")
        with pytest.raises(Unavailable, match="shard-3 does not run"):
            await host.address("shard-3")
        assert [await host.address(shard_id) for shard_id in shard_ids[:3]] == addresses[:3]
        await host.start("shard-3")
        assert await serving(host, "shard-3") == addresses[3]
        await asyncio.gather(*(host.stop(shard_id) for shard_id in shard_ids))

    asyncio.run(main())


@pytest.mark.usefixtures("cluster")
def test_scaling_asks_the_autoscaler_for_room_and_changes_the_share_of_gpus(tmp_path: Path) -> None:
    def asked() -> object:
        return json.loads(_internal_kv_get(_ROOM_ASKED_FOR))

    async def main() -> None:
        host = host_of(tmp_path, ShardResources(num_cpus=0.5, num_gpus=0.5, labels={"disk": "fast"}))
        await host.scale(["shard-0", "shard-1"], None)
        assert asked() == [{"CPU": 0.5, "GPU": 0.5}] * 2
        await host.start("shard-0")
        await serving(host, "shard-0")
        assert gpus_taken() == 0.5
        await host.scale(["shard-0", "shard-1", "shard-2"], 0.25)
        assert asked() == [{"CPU": 0.5, "GPU": 0.25}] * 3
        # Those that run keep what they have until they are restarted.
        await host.start("shard-1")
        await serving(host, "shard-1")
        await eventually(lambda: asyncio.to_thread(lambda: gpus_taken() == 0.75))
        await host.restart("shard-0")
        await serving(host, "shard-0")
        await eventually(lambda: asyncio.to_thread(lambda: gpus_taken() == 0.5))
        await asyncio.gather(*(host.stop(shard_id) for shard_id in ("shard-0", "shard-1")))

    asyncio.run(main())


@pytest.mark.usefixtures("cluster")
def test_a_shard_waits_for_a_node_with_its_labels(tmp_path: Path) -> None:
    async def main() -> None:
        host = host_of(tmp_path, ShardResources(num_cpus=0, labels={"disk": "slow"}))
        await host.start("shard-0")
        with pytest.raises(Unavailable):
            await host.address("shard-0")
        await host.stop("shard-0")
        host = host_of(tmp_path, ShardResources(num_cpus=0, labels={"disk": "fast"}))
        await host.start("shard-0")
        await serving(host, "shard-0")
        await host.stop("shard-0")

    asyncio.run(main())
