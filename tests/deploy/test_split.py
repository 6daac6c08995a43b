"""Splitting a model by command, and dividing a channel anew while a cluster serves it."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from deploy.commands.resplit import resplit_release
from deploy.release_files import write_release
from deploy.workspace import Workspace
from router.client import HeadraceClient
from router.client_results import SearchResult
from router.router_config import RouterConfig
from router.router_server import Router
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.deploy.running_cluster import run
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import RunningController, running_controller
from tests.shards import bundles

RELEASE = Release(
    surface="shop",
    version="r1",
    channels=(
        ReleaseChannel(name="lexical", model=ModelVersion("lexical", "1"), k=50),
        ReleaseChannel(name="nearby", model=ModelVersion("two_tower", "1"), k=50),
    ),
    retrieval_budget_ms=3_000,
)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    workspace = Workspace(tmp_path_factory.mktemp("split"))
    workspace.models_dir.mkdir()
    bundles.write_lexical(workspace.models_dir)
    bundles.write_two_tower(workspace.models_dir, bundles.seeded_words())
    write_release(workspace, RELEASE)
    return workspace


def headrace(workspace: Workspace, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(*arguments, "--workspace", str(workspace.root))


def test_a_model_is_split_and_what_is_there_is_kept(workspace: Workspace) -> None:
    first = headrace(workspace, "models", "split", "two_tower@1", "--partitions", "2")
    assert (first.returncode, first.stdout) == (0, "two_tower.0-of-2@1\ntwo_tower.1-of-2@1\n")
    assert first.stderr == "wrote two_tower.0-of-2@1\nwrote two_tower.1-of-2@1\n"
    again = headrace(workspace, "models", "split", "two_tower@1", "--partitions", "2", "--json")
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout) == {
        "model": "two_tower@1",
        "partitions": ["two_tower.0-of-2@1", "two_tower.1-of-2@1"],
    }


@pytest.mark.parametrize(
    ("model", "partitions", "problem"),
    [
        ("lexical@1", "2", "model: lexical@1 scores by BM25, which weighs words by"),
        ("two_tower", "2", "model: 'two_tower' is not NAME@VERSION"),
        ("two_tower@../1", "2", "model: 'two_tower@../1' is not NAME@VERSION"),
    ],
)
def test_a_model_that_cannot_be_split_is_refused(
    workspace: Workspace, model: str, partitions: str, problem: str
) -> None:
    done = headrace(workspace, "models", "split", model, "--partitions", partitions)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"headrace: {problem}")
    assert done.stderr.count("\n") == 1


def test_the_version_tells_the_partitions_and_does_not_grow() -> None:
    twice = resplit_release(RELEASE, replace(RELEASE.channels[1], partitions=2))
    four = resplit_release(twice, replace(twice.channels[1], partitions=4))
    assert (twice.version, four.version) == ("r1.nearby-2", "r1.nearby-4")
    assert [channel.partitions for channel in four.channels] == [1, 4]


@asynccontextmanager
async def served(
    workspace: Workspace, folder: Path
) -> AsyncIterator[tuple[RunningController, HeadraceClient]]:
    (folder / "models").symlink_to(workspace.models_dir)
    async with in_process_shards(folder / "state") as host, running_controller(folder, host) as controller:
        assert (await controller.deploy(RELEASE)).detail.startswith("live")
        config = RouterConfig(controller=controller.address, default_deadline_s=5.0, grace_s=0.0)
        async with Router(config) as router:
            await router.ready()
            async with HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client:
                yield controller, client


def test_a_channel_is_divided_anew_while_searches_flow(workspace: Workspace, tmp_path: Path) -> None:
    async def resplit(controller: RunningController, partitions: int) -> subprocess.CompletedProcess[str]:
        options = ("--partitions", str(partitions), "--controller", controller.address)
        return await asyncio.to_thread(headrace, workspace, "release", "resplit", "shop", "nearby", *options)

    async def main() -> list[SearchResult]:
        results: list[SearchResult] = []
        async with served(workspace, tmp_path) as (controller, client), asyncio.TaskGroup() as group:

            async def flow() -> None:
                while not results or results[-1].release != "r1.nearby-1":
                    results.append(await client.search("shop", "red mug", explain=True))

            searching = group.create_task(flow())
            for partitions in (2, 4, 1):
                done = await resplit(controller, partitions)
                assert done.returncode == 0, done.stderr
                assert "live since generation" in done.stdout
            await searching
            refused = await resplit(controller, 1)
            assert (refused.returncode, refused.stdout) == (1, "")
            assert "must be at least 1 and other than 1, which 'nearby' has" in refused.stderr
        return results

    results = asyncio.run(main())
    assert {result.release for result in results} == {"r1", "r1.nearby-2", "r1.nearby-4", "r1.nearby-1"}
    for result in results:
        assert result.complete, result.gaps
        assert result.items == results[0].items
        assert result.explanation is not None
        assert results[0].explanation is not None
        assert (
            result.explanation.channels["nearby"].item_ids
            == results[0].explanation.channels["nearby"].item_ids
        )
