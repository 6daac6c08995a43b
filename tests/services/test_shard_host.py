"""Shards in a real Ray: started once, found again, and replaced even when their process hangs."""

import asyncio
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from services.shard_actor import NAMESPACE
from services.shard_config import ShardConfig
from services.shard_host import RayShardHost
from services.shard_link import ShardLink
from shards.cluster_events import ShardSeen, ShardSilent
from shards.errors import Unavailable
from tests.services.running_controller import eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        namespace=NAMESPACE,
    )
    yield
    ray.shutdown()


def host_of(tmp_path: Path) -> RayShardHost:
    return RayShardHost({"shard-0": ShardConfig(shard_id="shard-0", state_dir=tmp_path)})


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

    asyncio.run(main())
