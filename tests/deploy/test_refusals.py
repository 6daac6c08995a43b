"""What must be refused is refused with its reason, costs nothing, and shows in `headrace ops`."""

import asyncio
import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from google.protobuf.json_format import MessageToJson

from deploy.settings import PROJECT_ROOT
from router.client import HeadraceClient
from services.codec import release_to_proto
from shards.bundle import read_manifest, write_bundle
from shards.golden import GOLDEN_FILE, read_golden, write_golden
from shards.manifest import MANIFEST_FILE
from shards.release import ModelVersion, Release, ReleaseScorer
from tests.deploy.running_cluster import (
    PATIENT,
    RunningCluster,
    headrace,
    make_workspace,
    run,
    running_cluster,
)
from tests.shards.bundles import SURFACE

pytestmark = pytest.mark.cluster

SHARD_MEMORY_MB = 512


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """Give a cluster with more shards than replicas, so that there is room to move."""
    workspace = make_workspace(tmp_path_factory.mktemp("refusals"))
    options = ("--shards", "3", "--routers", "1", "--shard-memory-mb", str(SHARD_MEMORY_MB))
    with running_cluster(workspace, *options) as running:
        yield running


def command(cluster: RunningCluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run(*arguments, "--workspace", str(cluster.workspace.root))


def listed(cluster: RunningCluster, *arguments: str) -> dict[str, list[dict[str, object]]]:
    done = command(cluster, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
    return document


def version_of(cluster: RunningCluster, version: str, change: Callable[[Path], None]) -> ModelVersion:
    """Write another version of the ranker, changed before its checksums are taken."""
    original = cluster.workspace.models_dir / "ranker" / "1"

    def fill(folder: Path) -> None:
        ignored = shutil.ignore_patterns(MANIFEST_FILE)
        shutil.copytree(original, folder, dirs_exist_ok=True, ignore=ignored)
        change(folder)

    described = replace(read_manifest(original), version=version)
    write_bundle(cluster.workspace.models_dir, described, fill)
    return ModelVersion("ranker", version)


def deployed(cluster: RunningCluster, ranker: ModelVersion) -> subprocess.CompletedProcess[str]:
    """Deploy a release that differs from the live one in its ranker; it is called as that one's version."""
    wanted = replace(
        PATIENT, version=ranker.version, ranker=ReleaseScorer(model=ranker, candidates=60, budget_ms=3_000)
    )
    file = cluster.workspace.root / f"{wanted.version}.json"
    file.write_text(MessageToJson(release_to_proto(wanted)))
    return command(cluster, "release", "deploy", str(file))


def check_refused(
    cluster: RunningCluster, done: subprocess.CompletedProcess[str], reason: str, *, live: Release = PATIENT
) -> None:
    """The command says why, `ops show` says it too, and what was live answers a search in full."""
    assert done.returncode == 1, done.stdout
    assert reason in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    last = listed(cluster, "ops", "list")["operations"][-1]
    assert last["state"] == "OPERATION_STATE_FAILED"
    assert reason in str(last["detail"])
    shown = command(cluster, "ops", "show", str(last["operationId"]))
    assert "failed" in shown.stdout
    assert "".join(reason.split()) in "".join(shown.stdout.replace("│", "").split())
    check_live(cluster, live)


def check_live(cluster: RunningCluster, live: Release) -> None:
    async def search() -> None:
        async with HeadraceClient(cluster.router, timeout_s=5.0) as client:
            result = await client.search(SURFACE, "red mug", user_id="u1", page_size=5)
        assert result.complete, result.gaps
        assert result.release == live.version
        assert len(result.items) == 5

    asyncio.run(search())
    (surface,) = listed(cluster, "release", "list")["surfaces"]
    assert surface["live"]["version"] == live.version  # type: ignore[index]


@contextmanager
def full_disk(pid: int, room_bytes: int) -> Iterator[None]:
    """Let a process write no file beyond this size, as if there were no more room for it."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (room_bytes, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))


def shard_pids(cluster: RunningCluster) -> list[int]:
    return [int(str(shard["pid"])) for shard in listed(cluster, "shards", "list")["shards"]]


def move_of(cluster: RunningCluster, file: Path) -> None:
    """Write the plan that moves the ranker from a shard which holds it to the one which does not."""
    models = listed(cluster, "models", "list")["models"]
    holders = next(m["shardIds"] for m in models if m["model"] == {"model": "ranker", "version": "1"})
    assert isinstance(holders, list)
    free = next(s for s in ("shard-0", "shard-1", "shard-2") if s not in holders)
    planned = command(cluster, "shards", "move", "ranker@1", holders[0], free, "--dry-run", "--json")
    assert planned.returncode == 0, planned.stderr
    file.write_text(planned.stdout)


def test_a_bundle_whose_manifest_is_unreadable(cluster: RunningCluster) -> None:
    ranker = version_of(cluster, "garbled", lambda _: None)
    (cluster.workspace.models_dir / "ranker" / "garbled" / MANIFEST_FILE).write_text("{")
    check_refused(cluster, deployed(cluster, ranker), "manifest.json: of ranker@garbled: ")


def test_a_bundle_with_a_byte_changed(cluster: RunningCluster) -> None:
    ranker = version_of(cluster, "altered", lambda _: None)
    file = cluster.workspace.models_dir / "ranker" / "altered" / "items.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    check_refused(cluster, deployed(cluster, ranker), "cannot serve ranker@altered: items.parquet: ")


def test_a_bundle_that_is_not_there(cluster: RunningCluster) -> None:
    check_refused(cluster, deployed(cluster, ModelVersion("ranker", "none")), "'ranker@none' does not exist")


def test_a_bundle_too_big_for_every_shard(cluster: RunningCluster) -> None:
    def grow(folder: Path) -> None:
        with (folder / "ballast.bin").open("wb") as file:
            file.truncate((SHARD_MEMORY_MB + 1) * 2**20)

    check_refused(
        cluster, deployed(cluster, version_of(cluster, "big", grow)), "no shard can hold ranker@big: "
    )


def test_a_bundle_that_scores_otherwise_than_in_training(cluster: RunningCluster) -> None:
    def contradict(folder: Path) -> None:
        golden = read_golden(folder / GOLDEN_FILE)
        scores = [{name: column + 0.1 for name, column in columns.items()} for columns in golden.scores]
        write_golden(folder / GOLDEN_FILE, replace(golden, scores=tuple(scores)))

    check_refused(
        cluster, deployed(cluster, version_of(cluster, "drifted", contradict)), "golden.npz: request 0 of 8"
    )


def test_a_full_disk_at_a_shard(cluster: RunningCluster) -> None:
    ranker = version_of(cluster, "unwritten", lambda _: None)
    pids = shard_pids(cluster)
    with full_disk(pids[0], 8), full_disk(pids[1], 8), full_disk(pids[2], 8):
        done = deployed(cluster, ranker)
        check_refused(cluster, done, "record")
        assert "cannot be written: File too large" in done.stderr
    assert shard_pids(cluster) == pids


def test_a_full_disk_at_the_controller(cluster: RunningCluster) -> None:
    ranker = version_of(cluster, "uncommitted", lambda _: None)
    pid = cluster.pid("controller")
    snapshot = cluster.workspace.placement_path.read_bytes()
    with full_disk(pid, 8):
        check_refused(
            cluster, deployed(cluster, ranker), "the placement cannot be stored: [Errno 27] File too large"
        )
        assert cluster.workspace.placement_path.read_bytes() == snapshot
    assert cluster.pid("controller") == pid


def test_a_plan_of_an_old_generation(cluster: RunningCluster, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    move_of(cluster, file)
    for target in (SURFACE, ""):
        options = ("gifts", target) if target else ("gifts", "--remove")
        assert command(cluster, "release", "alias", *options).returncode == 0
    check_refused(cluster, command(cluster, "shards", "apply", str(file)), "the plan was made on generation ")


def test_two_operators_who_apply_at_once(cluster: RunningCluster, tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    move_of(cluster, file)
    apply = headrace("shards", "apply", str(file), "--workspace", str(cluster.workspace.root))
    both = [
        subprocess.Popen(apply, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=60) for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    (loser,) = (errors for process, (_, errors) in zip(both, told, strict=True) if process.returncode)
    assert any(words in loser for words in ("is under way", "the plan was made on generation"))
    states = [operation["state"] for operation in listed(cluster, "ops", "list")["operations"][-2:]]
    assert sorted(map(str, states)) == ["OPERATION_STATE_FAILED", "OPERATION_STATE_SUCCEEDED"]
    check_live(cluster, PATIENT)
