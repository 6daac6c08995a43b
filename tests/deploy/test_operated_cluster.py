"""Operators' commands against `headrace up`: real Ray, real shards, and a restart in between."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToJson

from router.client import HeadraceClient
from services.codec import release_to_proto
from shards.release import Release
from tests.deploy.running_cluster import PATIENT, RunningCluster, make_workspace, run, running_cluster
from tests.shards.bundles import SURFACE

pytestmark = pytest.mark.cluster


def done(cluster: RunningCluster, *arguments: str) -> str:
    """Run a command that must succeed; returns what it printed."""
    ran = run(*arguments, "--workspace", str(cluster.workspace.root))
    assert ran.returncode == 0, f"{arguments}: {ran.stderr}"
    return ran.stdout


def file_of(folder: Path, release: Release) -> str:
    path = folder / f"{release.version}.json"
    path.write_text(MessageToJson(release_to_proto(release)))
    return str(path)


def searched_beside(cluster: RunningCluster, work: Callable[[], None]) -> int:
    """Search without pause while `work` is done; returns how many answers came, all of them full."""

    async def main() -> int:
        answers = 0
        async with HeadraceClient(cluster.router, timeout_s=10.0) as client:
            working = asyncio.create_task(asyncio.to_thread(work))
            while not working.done():
                result = await client.search(SURFACE, "red mug", user_id="u1", page_size=5)
                assert result.complete, result.gaps
                answers += 1
            await working
        return answers

    return asyncio.run(main())


def test_operators_lose_no_search_and_nothing_of_theirs_over_a_restart(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w")
    wanted = replace(PATIENT, version="r2", merged=100)

    with running_cluster(workspace, "--shards", "3") as cluster:

        def operate() -> None:
            done(cluster, "shards", "drain", "shard-1")
            shown = json.loads(done(cluster, "shards", "show", "shard-1", "--json"))
            assert (shown["state"], shown["replicas"]) == ("SHARD_STATE_DRAINED", [])
            done(cluster, "shards", "undrain", "shard-1")
            done(cluster, "shards", "apply")
            done(cluster, "release", "deploy", file_of(tmp_path, wanted))
            done(cluster, "release", "rollback", SURFACE)

        assert searched_beside(cluster, operate) > 50
        begun = done(cluster, "scale", "--shards", "4", "--no-wait").strip()
        assert "scale to 4 shards" in done(cluster, "ops", "wait", begun)
        listed = json.loads(done(cluster, "ops", "list", "--json"))["operations"]
        assert {o["state"] for o in listed} == {"OPERATION_STATE_SUCCEEDED"}
        assert SURFACE in done(cluster, "status")

    with running_cluster(workspace, "--shards", "3") as cluster:
        surface = json.loads(done(cluster, "release", "list", "--json"))["surfaces"][0]
        assert surface["live"]["version"] == PATIENT.version
        assert surface["traffic"]["previous"]["version"] == "r2"
        shards = json.loads(done(cluster, "shards", "list", "--json"))["shards"]
        assert [s["shardId"] for s in shards] == [f"shard-{n}" for n in range(4)]
        assert begun[:8] in done(cluster, "ops", "list")
