"""What operators do with bundles on demand: pin and unpin them, and repair one that was given up."""

import asyncio
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2
from router.client import HeadraceClient, SearchError
from router.router_config import RouterConfig
from router.router_server import Router
from services.codec import model_version_to_proto
from shards.bundle import open_bundle
from shards.changes import ModelPolicy
from shards.manifest import MANIFEST_FILE
from shards.planner import Limits
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import RunningController, eventually, running_controller
from tests.services.shard_client import Models
from tests.shards.bundles import VERSION
from tests.shards.many_bundles import write_copy

READY, COLD, FAILED = (
    shard_service_pb2.REPLICA_STATE_READY,
    shard_service_pb2.REPLICA_STATE_COLD,
    shard_service_pb2.REPLICA_STATE_FAILED,
)
SOUND, DAMAGED = (ModelVersion(name, VERSION) for name in ("sound", "damaged"))
ON_DEMAND = ModelPolicy(model=SOUND, on_demand=True)
PINNED = ModelPolicy(model=SOUND, on_demand=True, pinned=True)


def surface_of(model: ModelVersion) -> Release:
    channel = ReleaseChannel(name="only", model=model)
    return Release(surface=model.model, version="1", channels=(channel,), on_demand=True)


def damage(folder: Path) -> Callable[[], None]:
    """Alter one byte of the largest file; returns what repairs it."""
    bundle = open_bundle(folder)
    name = max(bundle.manifest.files, key=lambda name: bundle.manifest.files[name].size_bytes)
    whole = bundle.file(name).read_bytes()
    bundle.file(name).write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert name != MANIFEST_FILE

    def repair() -> None:
        bundle.file(name).write_bytes(whole)

    return repair


Main = Callable[[RunningController, HeadraceClient, Path], Awaitable[None]]


def check(models: Models, root: Path, main: Main) -> None:
    """Run `main` over a controller, two shards, a router and two surfaces on demand."""

    async def run() -> None:
        for model in (SOUND, DAMAGED):
            write_copy(root / "models", models.path(ModelVersion("lexical", VERSION)), model.model)
        async with (
            in_process_shards(root / "state") as shards,
            running_controller(root, shards, limits=Limits(min_replicas=1, max_replicas=1)) as controller,
        ):
            for model in (SOUND, DAMAGED):
                operation = await controller.deploy(surface_of(model))
                assert operation.state == pb.OPERATION_STATE_SUCCEEDED, operation.detail
            async with (
                Router(RouterConfig(controller=controller.address, grace_s=0)) as router,
                HeadraceClient(router.address, timeout_s=9, max_attempts=1) as client,
            ):
                await router.ready()
                await main(controller, client, root / "models" / DAMAGED.model / VERSION)

    asyncio.run(run())


async def replica_of(controller: RunningController, model: ModelVersion) -> shard_service_pb2.Replica:
    listed = await controller.stub.ListModels(pb.ListModelsRequest(), timeout=10)
    (found,) = [m for m in listed.models if m.model == model_version_to_proto(model)]
    (held,) = found.replicas
    return held.replica


async def becomes(controller: RunningController, model: ModelVersion, state: int) -> None:
    async def is_so() -> bool:
        return (await replica_of(controller, model)).state == state

    await eventually(is_so)


def test_a_pinned_bundle_is_loaded_and_can_be_evicted_again_once_unpinned(
    models: Models, tmp_path: Path
) -> None:
    async def main(controller: RunningController, client: HeadraceClient, _: Path) -> None:
        await becomes(controller, SOUND, COLD)
        assert (await controller.hold(ON_DEMAND)).state == pb.OPERATION_STATE_SUCCEEDED
        assert (await replica_of(controller, SOUND)).state == COLD
        assert (await controller.hold(PINNED)).state == pb.OPERATION_STATE_SUCCEEDED
        assert (await replica_of(controller, SOUND)).state == READY
        assert (await controller.hold(ON_DEMAND)).state == pb.OPERATION_STATE_SUCCEEDED
        assert (await client.search(SOUND.model, "red mug")).items

    check(models, tmp_path, main)


def test_a_bundle_that_is_given_up_says_why_until_it_is_repaired_and_asked_for_again(
    models: Models, tmp_path: Path
) -> None:
    async def main(controller: RunningController, client: HeadraceClient, folder: Path) -> None:
        repair = damage(folder)
        while (await replica_of(controller, DAMAGED)).state != FAILED:
            with pytest.raises(SearchError, match="failed to load") as caught:
                await client.search(DAMAGED.model, "red mug")
            assert "sha256" in caught.value.message
            assert (await client.search(SOUND.model, "red mug")).items
        assert "sha256" in (await replica_of(controller, DAMAGED)).error
        with pytest.raises(SearchError, match=r"failed to load 3 times, the last time: .*sha256"):
            await client.search(DAMAGED.model, "red mug")
        wanted = ModelPolicy(model=DAMAGED, on_demand=True)
        refused = await controller.hold(wanted)
        assert refused.state == pb.OPERATION_STATE_FAILED
        assert "sha256" in refused.detail
        repair()
        assert (await controller.hold(wanted)).state == pb.OPERATION_STATE_SUCCEEDED
        assert (await client.search(DAMAGED.model, "red mug")).items

    check(models, tmp_path, main)


def test_a_bundle_damaged_before_is_refused(models: Models, tmp_path: Path) -> None:
    async def main(controller: RunningController, _: HeadraceClient, folder: Path) -> None:
        other = ModelVersion("other", VERSION)
        shutil.copytree(folder, folder.parent.parent / other.model / VERSION)
        operation = await controller.hold(ModelPolicy(model=other, on_demand=True))
        assert operation.state == pb.OPERATION_STATE_FAILED
        assert "damaged" in operation.detail

    check(models, tmp_path, main)
