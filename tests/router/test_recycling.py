"""A shard whose process leaks asks for a restart, gets one, and no search is lost meanwhile."""

import asyncio
from pathlib import Path

from router.client import HeadraceClient
from router.router_config import RouterConfig
from router.router_server import Router
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import SHARDS, eventually, running_controller
from tests.shards.bundles import SURFACE, VERSION, write_lexical

LEAK_BYTES = 512 << 20
LEXICAL = ReleaseChannel(name="lexical", model=ModelVersion("lexical", VERSION))
SMALL = Release(surface=SURFACE, version="1", channels=(LEXICAL,))


def test_a_leaking_shard_is_restarted_without_a_lost_search(tmp_path: Path) -> None:
    write_lexical(tmp_path / "models")

    async def main() -> None:
        async with (
            in_process_shards(tmp_path, leak_limit_bytes=LEAK_BYTES // 2, leak_patience_s=0.2) as host,
            running_controller(tmp_path, host) as controller,
            Router(RouterConfig(controller=controller.address, grace_s=0.0)) as router,
            HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client,
        ):
            await controller.deploy(SMALL)
            await router.ready()
            searches = 0
            stop = asyncio.Event()

            async def search() -> None:
                nonlocal searches
                while not stop.is_set():
                    result = await client.search(SURFACE, "red mug")
                    assert (result.items[0].item_id, result.complete) == ("item-100", True)
                    searches += 1

            async def all_restarted() -> bool:
                return set(host.restarted) == set(SHARDS)

            async def ten_more() -> bool:
                return searches > known + 10

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(search())
                # Both shards live in this process, so that both see the leak, and go one after the other.
                leak = bytearray(b"x" * LEAK_BYTES)
                await eventually(all_restarted, within_s=60)
                known = searches
                await eventually(ten_more)
                stop.set()
            assert sorted(host.restarted) == sorted(SHARDS)
            assert len(leak) == LEAK_BYTES

    asyncio.run(main())
