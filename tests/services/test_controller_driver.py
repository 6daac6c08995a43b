"""What the driver does when the world around it fails: the store, the host, another controller."""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from services.bundle_catalogue import BundleCatalogue
from services.controller_driver import ControllerDriver, DriverConfig
from services.placement_store import Committed, Conflict, MemoryPlacementStore, PlacementStore
from services.shard_host import ShardHost
from shards.cluster_state import ControllerSettings
from shards.errors import NotFound, Unavailable
from shards.placement import Placement
from shards.planner import Limits
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import eventually

SETTINGS = ControllerSettings(
    limits=Limits(),
    shard_capacity_bytes=2**30,
    start_after_ms=100,
    restart_after_ms=100,
    missing_after_ms=100,
)


class FullDiskStore(MemoryPlacementStore):
    """Has no room for the first commits."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    async def commit(self, expected_generation: int, placement: Placement) -> Committed | Conflict:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.ENOSPC, "No space left on device")
        return await super().commit(expected_generation, placement)


class BrokenHost:
    """Cannot start anything."""

    def __init__(self) -> None:
        self.attempts: list[str] = []

    async def start(self, shard_id: str) -> None:
        self.attempts.append(f"start {shard_id}")
        raise OSError("no Ray here")

    async def address(self, shard_id: str) -> str:
        raise Unavailable(f"{shard_id} does not run")

    async def restart(self, shard_id: str) -> None:
        self.attempts.append(f"restart {shard_id}")
        raise OSError("no Ray here")

    async def stop(self, shard_id: str) -> None:
        self.attempts.append(f"stop {shard_id}")
        raise OSError("no Ray here")

    async def scale(self, shard_ids: Sequence[str], gpu_fraction: float | None) -> None:
        self.attempts.append(f"scale {shard_ids} {gpu_fraction}")
        raise OSError("no Ray here")


async def drive(
    root: Path, store: PlacementStore, host: ShardHost, main: Callable[[ControllerDriver], Awaitable[None]]
) -> None:
    config = DriverConfig(shard_ids=("shard-0",), settings=SETTINGS, poll_s=0.02)
    async with ControllerDriver(config, store, host, BundleCatalogue(root / "models")) as driver:
        await main(driver)


def test_a_commit_that_finds_no_room_is_repeated(tmp_path: Path) -> None:
    store = FullDiskStore(failures=1)

    async def main(driver: ControllerDriver) -> None:
        async def committed() -> bool:
            return (await store.read()).generation == 1

        await eventually(committed)
        assert driver.state.placement == await store.read()
        assert set(driver.state.placement.endpoints) == {"shard-0"}

    async def run() -> None:
        async with in_process_shards(tmp_path) as shards:
            await drive(tmp_path, store, shards, main)

    asyncio.run(run())


def test_a_commit_of_somebody_else_is_built_upon(tmp_path: Path) -> None:
    store = MemoryPlacementStore()

    async def main(driver: ControllerDriver) -> None:
        async def above(generation: int) -> bool:
            return driver.state.placement.generation > generation

        await eventually(lambda: above(0))
        others = replace(await store.read(), generation=50, endpoints={})
        await store.commit((await store.read()).generation, others)
        # The next change of its own collides, and is made again on what the store holds.
        watch = driver.watch(known_generation=2)
        await anext(watch)
        await eventually(lambda: above(50))
        assert set((await store.read()).endpoints) == {"shard-0"}

    async def run() -> None:
        async with in_process_shards(tmp_path) as shards:
            await drive(tmp_path, store, shards, main)

    asyncio.run(run())


def test_a_host_that_cannot_start_shards_is_asked_again(tmp_path: Path) -> None:
    host = BrokenHost()

    async def main(_: ControllerDriver) -> None:
        async def tried_again() -> bool:
            return len(host.attempts) >= 3

        await eventually(tried_again)
        assert host.attempts[:3] == ["start shard-0", "restart shard-0", "restart shard-0"]

    asyncio.run(drive(tmp_path, MemoryPlacementStore(), host, main))


def test_an_operation_that_never_was_is_not_found(tmp_path: Path) -> None:
    async def main(driver: ControllerDriver) -> None:
        with pytest.raises(NotFound, match="operation 'x' does not exist"):
            driver.operation("x")

    asyncio.run(drive(tmp_path, MemoryPlacementStore(), BrokenHost(), main))


@pytest.mark.parametrize("config", [{"shard_ids": ()}, {"shard_ids": ("a", "a")}, {"poll_s": 0.0}])
def test_a_driver_needs_distinct_shards_and_time(config: dict[str, object]) -> None:
    sound = DriverConfig(shard_ids=("a",), settings=SETTINGS)
    with pytest.raises(ValueError, match="must be"):
        replace(sound, **config)  # type: ignore[arg-type]
