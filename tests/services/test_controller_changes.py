"""What operators ask of a controller, over real shards, a real store and its failures."""

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services.bundle_catalogue import BundleCatalogue
from services.controller_driver import ControllerDriver, DriverConfig
from services.placement_store import Committed, Conflict, MemoryPlacementStore
from shards.changes import (
    ApplyPlan,
    Change,
    DeployRelease,
    DrainShard,
    HoldModel,
    ModelPolicy,
    RestartShards,
    RollbackRelease,
    ScaleShards,
)
from shards.cluster_state import ControllerSettings
from shards.errors import Conflict as ChangedMeanwhile
from shards.errors import InvalidInput, NotFound, Refused, Unavailable
from shards.intent import Operation, OperationState
from shards.placement import Placement
from shards.planner import Limits, PlannedMove
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.services.in_process_shards import InProcessShards, in_process_shards
from tests.services.running_controller import eventually
from tests.shards.bundles import SURFACE, build_models

LEXICAL = ModelVersion("lexical", "1")
SMALL = Release(surface=SURFACE, version="1", channels=(ReleaseChannel(name="lexical", model=LEXICAL),))
SETTINGS = ControllerSettings(
    limits=Limits(min_replicas=1, max_replicas=1),
    shard_capacity_bytes=2**30,
    lost_after_ms=200,
    unload_after_ms=100,
)


class FillingStore(MemoryPlacementStore):
    """Has room until somebody says that the disk is full."""

    full = False

    async def commit(self, expected_generation: int, placement: Placement) -> Committed | Conflict:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return await super().commit(expected_generation, placement)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("changes")
    build_models(root / "models")
    return root


@asynccontextmanager
async def controller(
    root: Path, store: MemoryPlacementStore, shards: InProcessShards
) -> AsyncIterator[ControllerDriver]:
    config = DriverConfig(shard_ids=("shard-0", "shard-1"), settings=SETTINGS, poll_s=0.02)
    async with ControllerDriver(config, store, shards, BundleCatalogue(root / "models")) as driver:
        yield driver


async def ended(driver: ControllerDriver, operation: Operation) -> Operation:
    async def has_ended() -> bool:
        return not driver.operation(operation.operation_id).running

    await eventually(has_ended, within_s=30)
    return driver.operation(operation.operation_id)


async def done(driver: ControllerDriver, change: Change) -> Operation:
    operation = await ended(driver, await driver.request(change))
    assert operation.state is OperationState.SUCCEEDED, operation.detail
    return operation


Main = Callable[[ControllerDriver, FillingStore, InProcessShards], Awaitable[None]]


def check(root: Path, tmp_path: Path, main: Main) -> None:
    """Run `main` over two shards, with a small release live."""

    async def run() -> None:
        store = FillingStore()
        async with AsyncExitStack() as exits:
            shards = await exits.enter_async_context(in_process_shards(tmp_path))
            driver = await exits.enter_async_context(controller(root, store, shards))
            await done(driver, DeployRelease(release=SMALL))
            await main(driver, store, shards)

    asyncio.run(run())


def holders(driver: ControllerDriver) -> tuple[str, ...]:
    return driver.state.placement.assignments[LEXICAL].shard_ids


def test_a_change_is_answered_once_it_is_committed(root: Path, tmp_path: Path) -> None:
    async def main(driver: ControllerDriver, store: FillingStore, _: InProcessShards) -> None:
        operation = await driver.request(DrainShard(shard_id=holders(driver)[0]))
        known = {o.operation_id for o in (await store.read()).intent.operations}
        assert operation.operation_id in known
        assert (await ended(driver, operation)).state is OperationState.SUCCEEDED
        assert driver.operations()[-1].operation_id == operation.operation_id

    check(root, tmp_path, main)


def test_a_full_disk_refuses_the_change_and_shows_it(root: Path, tmp_path: Path) -> None:
    async def main(driver: ControllerDriver, store: FillingStore, _: InProcessShards) -> None:
        store.full = True
        before = await store.read()
        with pytest.raises(Unavailable, match="No space left on device"):
            await driver.request(DrainShard(shard_id="shard-0"))
        failed = driver.operations()[-1]
        assert failed.state is OperationState.FAILED
        assert "No space left on device" in failed.detail
        assert await store.read() == before
        store.full = False
        await done(driver, DrainShard(shard_id="shard-0"))

    check(root, tmp_path, main)


def test_a_disk_that_fills_meanwhile_delays_the_end_of_a_change(root: Path, tmp_path: Path) -> None:
    async def main(driver: ControllerDriver, store: FillingStore, _: InProcessShards) -> None:
        empty = next(s for s in ("shard-0", "shard-1") if s not in holders(driver))
        move = PlannedMove(
            model=LEXICAL, from_shard=holders(driver)[0], to_shard=empty, memory_bytes=0, reason="a test"
        )
        plan = ApplyPlan(generation=driver.state.placement.generation, moves=(move,))
        operation = await driver.request(plan)
        store.full = True
        before = await store.read()

        async def loaded() -> bool:
            return driver.state.shards[empty].ready(LEXICAL) and driver.state.commit_after_ms > 0

        await eventually(loaded)
        assert await store.read() == before
        assert driver.operation(operation.operation_id).running
        store.full = False
        assert (await ended(driver, operation)).state is OperationState.SUCCEEDED
        assert holders(driver) == (empty,)

    check(root, tmp_path, main)


def test_what_is_wrong_is_raised_with_its_reason(root: Path, tmp_path: Path) -> None:
    async def main(driver: ControllerDriver, _: FillingStore, __: InProcessShards) -> None:
        with pytest.raises(NotFound, match="shard-9"):
            await driver.request(DrainShard(shard_id="shard-9"))
        with pytest.raises(Refused, match="no release before"):
            await driver.request(RollbackRelease(surface=SURFACE))
        with pytest.raises(NotFound, match="bundle"):
            await driver.request(HoldModel(policy=ModelPolicy(model=ModelVersion("nobody", "1"))))
        assert driver.operations()[-1].detail == "bundle 'nobody@1' does not exist"
        with pytest.raises(NotFound, match="operation"):
            await driver.cancel("nothing")

    check(root, tmp_path, main)


def test_a_plan_is_tried_applied_once_and_then_out_of_date(root: Path, tmp_path: Path) -> None:
    async def main(driver: ControllerDriver, _: FillingStore, __: InProcessShards) -> None:
        (source,) = holders(driver)
        target = "shard-1" if source == "shard-0" else "shard-0"
        move = PlannedMove(
            model=LEXICAL, from_shard=source, to_shard=target, memory_bytes=0, reason="asked for"
        )
        tried = driver.plan((move,))
        assert holders(driver) == (source,)
        assert tried.moved_bytes > 0
        assert tried.duration_s > 0
        forecast = {shard.shard_id: shard for shard in tried.shards}
        assert forecast[source].after_bytes < forecast[source].before_bytes
        assert forecast[target].after_bytes > forecast[target].before_bytes
        with pytest.raises(InvalidInput, match=r"moves\[0\]: lexical@1 is not on"):
            driver.plan((replace(move, from_shard=target, to_shard=source),))
        plan = ApplyPlan(generation=tried.generation, moves=tried.plan.moves)
        await done(driver, plan)
        assert holders(driver) == (target,)
        with pytest.raises(ChangedMeanwhile, match="the plan was made on generation"):
            await driver.request(plan)

    check(root, tmp_path, main)


def test_shards_come_and_go(root: Path, tmp_path: Path) -> None:
    async def main(driver: ControllerDriver, _: FillingStore, shards: InProcessShards) -> None:
        await done(driver, ScaleShards(shards=4))
        assert set(driver.state.placement.endpoints) == {f"shard-{i}" for i in range(4)}
        await done(driver, ScaleShards(shards=1))
        assert set(driver.state.placement.endpoints) == {"shard-0"}
        assert holders(driver) == ("shard-0",)
        for gone in ("shard-1", "shard-2", "shard-3"):
            with pytest.raises(Unavailable):
                await shards.address(gone)

    check(root, tmp_path, main)


def test_every_shard_lives_anew_after_a_rolling_restart(root: Path, tmp_path: Path) -> None:
    async def main(driver: ControllerDriver, _: FillingStore, shards: InProcessShards) -> None:
        before = {s: view.incarnation for s, view in driver.state.shards.items()}
        await done(driver, RestartShards(shard_ids=()))
        assert shards.restarted == ["shard-0", "shard-1"]
        after = {s: view.incarnation for s, view in driver.state.shards.items()}
        assert all(after[s] != before[s] for s in before)
        assert holders(driver)

    check(root, tmp_path, main)


def test_the_next_controller_finishes_what_was_begun(root: Path, tmp_path: Path) -> None:
    async def run() -> None:
        store = FillingStore()
        async with in_process_shards(tmp_path) as shards:
            async with controller(root, store, shards) as driver:
                await done(driver, DeployRelease(release=SMALL))
                begun = await driver.request(DrainShard(shard_id=holders(driver)[0]))
            async with controller(root, store, shards) as driver:
                finished = await ended(driver, begun)
                assert finished.state is OperationState.SUCCEEDED, finished.detail

    asyncio.run(run())


def test_a_cancelled_operation_is_ended_by_a_commit(root: Path, tmp_path: Path) -> None:
    async def main(driver: ControllerDriver, store: FillingStore, shards: InProcessShards) -> None:
        await shards.stop("shard-1")
        begun = await driver.request(ScaleShards(shards=3))
        cancelled = await driver.cancel(begun.operation_id)
        assert cancelled.state is OperationState.CANCELLED
        stored = {o.operation_id: o for o in (await store.read()).intent.operations}
        assert stored[begun.operation_id].state is OperationState.CANCELLED
        assert (await driver.cancel(begun.operation_id)).detail == "cancelled by an operator"

    check(root, tmp_path, main)


def test_a_controller_that_leads_no_more_says_so(root: Path, tmp_path: Path) -> None:
    async def run() -> None:
        leads = True
        async with in_process_shards(tmp_path) as shards:
            config = DriverConfig(shard_ids=("shard-0", "shard-1"), settings=SETTINGS, poll_s=0.02)
            catalogue, store = BundleCatalogue(root / "models"), FillingStore()
            async with ControllerDriver(config, store, shards, catalogue, lambda: leads) as driver:
                await done(driver, DeployRelease(release=SMALL))
                leads = False
                before = await store.read()
                with pytest.raises(Unavailable, match="another controller leads"):
                    await driver.request(DrainShard(shard_id="shard-0"))
                assert await store.read() == before

    asyncio.run(run())
