import asyncio
import shutil
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import pytest

from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2
from services.codec import placement_from_proto, release_to_proto
from services.status import from_rpc_error
from shards.errors import InvalidInput, NotFound
from shards.intent import Intent
from shards.placement import Placement
from shards.release import ModelVersion, Release, ReleaseChannel, ReleaseScorer
from tests.services.in_process_shards import InProcessShards, in_process_shards
from tests.services.running_controller import SHARDS, RunningController, eventually, running_controller
from tests.shards.bundles import RELEASE, SURFACE, build_models


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bundles")
    build_models(root)
    return root


@pytest.fixture
def root(tmp_path: Path, bundles: Path) -> Path:
    shutil.copytree(bundles, tmp_path / "models")
    return tmp_path


SMALL = Release(
    surface=SURFACE,
    version="small",
    channels=(ReleaseChannel(name="lexical", model=ModelVersion("lexical", "1")),),
)


def check(root: Path, main: Callable[[RunningController, InProcessShards], Awaitable[None]]) -> None:
    """Run `main` with a controller over two shards."""

    async def run() -> None:
        async with (
            in_process_shards(root / "state") as shards,
            running_controller(root, shards) as controller,
        ):
            await main(controller, shards)

    asyncio.run(run())


def test_a_release_is_deployed_on_every_shard_and_shown(root: Path) -> None:
    async def main(controller: RunningController, _: InProcessShards) -> None:
        operation = await controller.deploy(RELEASE)
        assert operation.state == pb.OPERATION_STATE_SUCCEEDED, operation.detail
        assert (operation.steps_done, operation.steps_total) == (14, 14)
        assert operation.end_time.seconds >= operation.start_time.seconds > 1_700_000_000

        response = await controller.stub.GetPlacement(pb.GetPlacementRequest())
        placement = placement_from_proto(response.placement)
        assert placement.releases == {SURFACE: RELEASE}
        assert {a.shard_ids for a in placement.assignments.values()} == {SHARDS}

        shards = await controller.stub.ListShards(pb.ListShardsRequest())
        assert shards.generation == placement.generation
        for shard in shards.shards:
            assert shard.state == pb.SHARD_STATE_SERVING
            assert shard.address == placement.endpoints[shard.shard_id]
            assert {r.state for r in shard.replicas} == {shard_service_pb2.REPLICA_STATE_READY}
            assert shard.memory_bytes == sum(r.memory_bytes for r in shard.replicas)
            assert (shard.node, shard.capacity_bytes) == ("127.0.0.1", 2**30)

        models = (await controller.stub.ListModels(pb.ListModelsRequest())).models
        assert [m.model.model for m in models] == sorted(m.model for m in RELEASE.models())
        ranker = next(m for m in models if m.model.model == "ranker")
        assert (ranker.engine, tuple(ranker.shard_ids)) == ("multi_task", SHARDS)
        assert list(ranker.surfaces) == [SURFACE]
        assert ranker.size_bytes > 0

    check(root, main)


def test_a_bundle_that_is_not_there_is_not_found(root: Path) -> None:
    async def main(controller: RunningController, _: InProcessShards) -> None:
        for name in ("no-such-model", "../models/lexical", "..", ""):
            wanted = replace(SMALL, channels=(ReleaseChannel(name="c", model=ModelVersion(name, "1")),))
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await controller.deploy(wanted)
            expected = NotFound if name else InvalidInput
            assert isinstance(from_rpc_error(refused.value), expected)
        operations = (await controller.stub.ListOperations(pb.ListOperationsRequest())).operations
        assert {o.state for o in operations} == {pb.OPERATION_STATE_FAILED}
        assert operations[0].detail == "bundle 'no-such-model@1' does not exist"

    check(root, main)


def test_a_bundle_pinned_for_a_stage_that_is_not_its_own_is_refused(root: Path) -> None:
    async def main(controller: RunningController, _: InProcessShards) -> None:
        wanted = replace(SMALL, ranker=ReleaseScorer(model=ModelVersion("pre_ranker", "1"), candidates=10))
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await controller.deploy(wanted)
        error = from_rpc_error(refused.value)
        assert isinstance(error, InvalidInput)
        assert str(error) == "release: pins pre_ranker@1 for ranking, but it serves pre-ranking"

    check(root, main)


def test_a_corrupt_bundle_is_named_and_the_old_release_serves_on(root: Path) -> None:
    broken = root / "models" / "ranker" / "1" / "items.parquet"
    broken.write_bytes(broken.read_bytes()[:-1])

    async def main(controller: RunningController, _: InProcessShards) -> None:
        assert (await controller.deploy(SMALL)).state == pb.OPERATION_STATE_SUCCEEDED
        operation = await controller.deploy(RELEASE)
        assert operation.state == pb.OPERATION_STATE_FAILED
        assert "cannot serve ranker@1: items.parquet: has" in operation.detail
        response = await controller.stub.GetPlacement(pb.GetPlacementRequest())
        assert placement_from_proto(response.placement).releases == {SURFACE: SMALL}

    check(root, main)


def test_what_no_release_uses_any_more_is_unloaded(root: Path) -> None:
    async def main(controller: RunningController, _: InProcessShards) -> None:
        async def only_lexical() -> bool:
            shards = (await controller.stub.ListShards(pb.ListShardsRequest())).shards
            return {replica.model.model for shard in shards for replica in shard.replicas} == {"lexical"}

        await controller.deploy(RELEASE)
        assert not await only_lexical()
        await controller.deploy(SMALL)
        assert not await only_lexical(), "the release before is kept for a rollback"
        await controller.deploy(replace(SMALL, version="smaller"))
        await eventually(only_lexical)

    check(root, main)


def test_a_shard_that_dies_leaves_the_placement_and_returns_by_itself(root: Path) -> None:
    def lexical(placement: Placement) -> tuple[str, ...]:
        return placement.assignments[ModelVersion("lexical", "1")].shard_ids

    async def main(controller: RunningController, shards: InProcessShards) -> None:
        await controller.deploy(SMALL)
        before = (await controller.placement_that(lambda p: lexical(p) == SHARDS)).generation
        await shards.stop("shard-1")
        gone = await controller.placement_that(lambda p: lexical(p) == ("shard-0",), before)
        listed = (await controller.stub.ListShards(pb.ListShardsRequest())).shards
        assert [shard.state for shard in listed] == [pb.SHARD_STATE_SERVING, pb.SHARD_STATE_DOWN]
        await shards.start("shard-1")
        back = await controller.placement_that(lambda p: lexical(p) == SHARDS, gone.generation)
        assert back.generation > gone.generation > before

    check(root, main)


def test_a_shard_that_dies_while_it_loads_is_asked_again(root: Path) -> None:
    async def main(controller: RunningController, shards: InProcessShards) -> None:
        await eventually(partial(all_seen, controller))
        deploying = asyncio.create_task(controller.deploy(RELEASE))

        async def loading() -> bool:
            return any(shard_id == "shard-1" for shard_id, _ in controller.driver.state.loading)

        await eventually(loading)
        await shards.stop("shard-1")
        assert controller.driver.state.placement.releases == {}
        await shards.start("shard-1")
        operation = await deploying
        assert operation.state == pb.OPERATION_STATE_SUCCEEDED, operation.detail

    check(root, main)


async def all_seen(controller: RunningController) -> bool:
    return all(view.incarnation for view in controller.driver.state.shards.values())


def test_a_restarted_controller_goes_on_where_it_was(root: Path) -> None:
    async def run() -> None:
        async with in_process_shards(root / "state") as shards:
            async with running_controller(root, shards) as controller:
                await controller.deploy(SMALL)
                before = controller.driver.state.placement
            async with running_controller(root, shards) as controller:
                first = await controller.placement_that(lambda _: True)
                assert first == replace(before, intent=Intent())
                await eventually(partial(all_seen, controller))
                assert controller.driver.state.placement == before
                models = (await controller.stub.ListModels(pb.ListModelsRequest())).models
                assert [(m.model.model, m.engine) for m in models] == [("lexical", "lexical")]
                operation = await controller.deploy(RELEASE)
                assert operation.state == pb.OPERATION_STATE_SUCCEEDED

    asyncio.run(run())


def test_a_watcher_gets_nothing_that_it_knows(root: Path) -> None:
    async def main(controller: RunningController, _: InProcessShards) -> None:
        await controller.deploy(SMALL)
        known = (await controller.placement_that(lambda p: SURFACE in p.releases)).generation
        news = asyncio.create_task(controller.placement_that(lambda _: True, known))
        await controller.deploy(RELEASE)
        placement = await news
        assert placement.generation > known

    check(root, main)


def test_a_watcher_from_the_future_is_overtaken(root: Path) -> None:
    async def main(controller: RunningController, _: InProcessShards) -> None:
        assert (await controller.placement_that(lambda _: True, 1_000)).generation == 1_001

    check(root, main)


def test_unknown_operations_and_broken_releases_are_told_apart(root: Path) -> None:
    async def main(controller: RunningController, _: InProcessShards) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as unknown:
            await controller.stub.GetOperation(pb.GetOperationRequest(operation_id="no-such"))
        assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
        plan = (await controller.stub.PlanRebalance(pb.PlanRebalanceRequest())).plan
        assert [shard.shard_id for shard in plan.shards] == list(SHARDS)
        broken = release_to_proto(replace(SMALL, channels=()))
        with pytest.raises(grpc.aio.AioRpcError) as invalid:
            await controller.stub.DeployRelease(pb.DeployReleaseRequest(release=broken))
        assert invalid.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    check(root, main)
