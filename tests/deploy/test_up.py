"""`headrace up` with real processes, real Ray and real shards."""

import asyncio
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import grpc
import pytest
from google.protobuf.json_format import MessageToJson
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from deploy.processes import descendants
from deploy.release_files import read_release
from deploy.workspace import Workspace
from router.client import HeadraceClient
from router.client_results import SearchResult
from services.access import digest
from services.codec import release_to_proto
from services.metrics_targets import metrics_targets
from shards.release import ModelVersion, ReleaseScorer
from tests.deploy.running_cluster import (
    PATIENT,
    RunningCluster,
    alive,
    make_workspace,
    run,
    running_cluster,
    start,
    wait_until,
)
from tests.services.scraping import scrape
from tests.services.spans import written_spans
from tests.shards.bundles import SURFACE

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    workspace = make_workspace(tmp_path_factory.mktemp("up"))
    telemetry = workspace.root / "telemetry.json"
    told = {"traces": {"folder": str(workspace.root / "spans")}, "logs": {"as_json": True, "slow_ms": 0.001}}
    telemetry.write_text(json.dumps(told))
    with running_cluster(workspace, "--telemetry", str(telemetry)) as running:
        yield running


async def search(client: HeadraceClient) -> SearchResult:
    return await client.search(SURFACE, "red mug", user_id="u1", page_size=5)


def searched_while(cluster: RunningCluster, happens: Callable[[], bool], within_s: float = 90.0) -> int:
    """Search without pause until the condition holds; returns how many answers came. None may fail."""

    async def main() -> int:
        answers = 0
        late_s = time.monotonic() + within_s
        async with HeadraceClient(cluster.router, timeout_s=5.0) as client:
            while True:
                for _ in range(10):
                    assert (await search(client)).items
                    answers += 1
                if await asyncio.to_thread(happens):
                    break
                assert time.monotonic() < late_s
        return answers

    return asyncio.run(main())


def listed(kind: str, cluster: RunningCluster) -> dict[str, list[dict[str, object]]]:
    done = run(kind, "list", "--json", "--workspace", str(cluster.workspace.root))
    assert done.returncode == 0, done.stderr
    document: dict[str, list[dict[str, object]]] = json.loads(done.stdout)
    return document


def live(cluster: RunningCluster) -> tuple[object, object]:
    """Return the first surface and the version of what is live on it."""
    surface = listed("release", cluster)["surfaces"][0]
    release = surface["live"]
    assert isinstance(release, dict)
    return surface["surface"], release["version"]


def states(cluster: RunningCluster) -> dict[object, object]:
    return {shard["shardId"]: shard["state"] for shard in listed("shards", cluster)["shards"]}


def all_serve(cluster: RunningCluster) -> bool:
    return states(cluster) == {"shard-0": "SHARD_STATE_SERVING", "shard-1": "SHARD_STATE_SERVING"}


def test_a_cluster_that_is_ready_answers_in_full(cluster: RunningCluster) -> None:
    async def main() -> None:
        async with HeadraceClient(cluster.router) as client:
            result = await search(client)
            assert result.complete
            assert len(result.items) == 5
            assert all(item.attributes["title"] for item in result.items)
        for address in (cluster.router, cluster.controller):
            async with grpc.aio.insecure_channel(address) as channel:
                health = await HealthStub(channel).Check(HealthCheckRequest())
                assert health.status == HealthCheckResponse.SERVING

    asyncio.run(main())


def test_commands_show_the_cluster(cluster: RunningCluster) -> None:
    where = ("--workspace", str(cluster.workspace.root))
    assert all_serve(cluster)
    models = listed("models", cluster)["models"]
    assert [m["shardIds"] for m in models] == [["shard-0", "shard-1"]] * len(PATIENT.models())
    assert all(m["surfaces"] == [SURFACE] for m in models)
    assert live(cluster) == (SURFACE, PATIENT.version)
    for command in (["status"], ["shards", "list"], ["models", "list"], ["release", "list"]):
        done = run(*command, *where)
        assert done.returncode == 0, done.stderr
        assert re.search("shard-1|ranker", done.stdout)
    found = run("search", "red mug", "--user", "u1", "--explain", *where)
    assert found.returncode == 0, found.stderr
    assert "two_tower" in found.stdout


def test_every_process_is_scraped_where_it_says(cluster: RunningCluster) -> None:
    processes = {"controller", "router-0", "router-1", "shard-0", "shard-1"}
    targets = metrics_targets(cluster.workspace.metrics_dir)
    assert {target.process for target in targets} == processes
    assert len({target.address for target in targets}) == len(processes)
    shown = run("status", "--workspace", str(cluster.workspace.root)).stdout
    for target in targets:
        scraped = scrape(target.address)
        assert scraped.value("process_start_time_seconds") > 0
        assert any(name.startswith(f"headrace_{target.role}_") for name in scraped.kinds)
        assert f"http://{target.address}/metrics" in shown


def test_a_search_can_be_followed_through_traces_and_logs(cluster: RunningCluster) -> None:
    where = ("--workspace", str(cluster.workspace.root))
    found = run("search", "red mug", "--user", "u1", "--trace", *where)
    trace_id = found.stderr.split()[-1]
    assert re.fullmatch("[0-9a-f]{32}", trace_id)

    def traced() -> dict[str, str]:
        spans = written_spans(cluster.workspace.root / "spans")
        return {span.name: span.process for span in spans if span.trace_id == trace_id}

    # Each process sends its spans on every few seconds.
    wait_until(lambda: {"search", "gate", "compute"} <= traced().keys())
    assert traced()["search"].startswith("router-")
    assert traced()["compute"].startswith("shard-")
    router_log = cluster.workspace.logs_dir / f"{traced()['search']}.log"
    lines = [json.loads(line) for line in router_log.read_text().splitlines()]
    (line,) = (line for line in lines if line["message"] == "search" and line["trace_id"] == trace_id)
    assert (line["reason"], line["surface"], line["status"]) == ("slow", SURFACE, "ok")
    assert {timing["stage"] for timing in line["timings"]} == {"retrieval", "pre-ranking", "ranking"}
    assert "red mug" not in json.dumps(line)


def test_a_second_cluster_in_the_workspace_is_refused(cluster: RunningCluster) -> None:
    done = run("up", "--workspace", str(cluster.workspace.root))
    assert done.returncode == 1
    assert done.stdout == ""
    assert re.fullmatch(r"headrace: a cluster runs in \S+ already; `headrace down` stops it\n", done.stderr)
    assert cluster.process.poll() is None


def test_a_release_with_a_broken_bundle_is_refused_and_the_old_one_serves_on(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    models = cluster.workspace.models_dir
    shutil.copytree(models / "ranker" / "1", models / "ranker" / "2")
    broken = replace(
        PATIENT, version="broken", ranker=ReleaseScorer(model=ModelVersion("ranker", "2"), candidates=60)
    )
    file = tmp_path / "broken.json"
    file.write_text(MessageToJson(release_to_proto(broken)))
    done = run("release", "deploy", str(file), "--workspace", str(cluster.workspace.root))
    assert done.returncode == 1
    assert re.search(r"headrace: shard-\d cannot serve ranker@2: manifest\.json: ", done.stderr)
    assert live(cluster) == (SURFACE, PATIENT.version)
    assert read_release(cluster.workspace, SURFACE) == PATIENT


def test_a_release_goes_live_under_traffic(cluster: RunningCluster, tmp_path: Path) -> None:
    wanted = replace(PATIENT, version="r2", merged=100)
    file = tmp_path / "r2.json"
    file.write_text(MessageToJson(release_to_proto(wanted)))
    deployed = []

    def deploy() -> bool:
        deployed.append(run("release", "deploy", str(file), "--workspace", str(cluster.workspace.root)))
        return True

    searched_while(cluster, deploy)
    assert deployed[0].returncode == 0, deployed[0].stderr
    assert deployed[0].stdout.startswith(f"deploy {SURFACE} r2: live since generation")
    assert read_release(cluster.workspace, SURFACE) == wanted

    async def version() -> str:
        async with HeadraceClient(cluster.router) as client:
            return (await search(client)).release

    wait_until(lambda: asyncio.run(version()) == "r2")


def test_a_killed_shard_costs_no_answer_and_returns_by_itself(cluster: RunningCluster) -> None:
    before = listed("shards", cluster)["shards"]
    os.kill(int(str(before[0]["pid"])), signal.SIGKILL)

    def returned() -> bool:
        now = listed("shards", cluster)["shards"]
        return now[0]["incarnation"] != before[0]["incarnation"] and all_serve(cluster)

    assert searched_while(cluster, returned) > 0
    assert listed("shards", cluster)["shards"][0]["address"] == before[0]["address"]


@pytest.mark.parametrize("name", ["controller", "router-0", "router-1"])
def test_a_killed_process_costs_no_answer_and_returns_by_itself(cluster: RunningCluster, name: str) -> None:
    generation = int(str(listed("shards", cluster)["generation"]))
    pid = cluster.pid(name)
    os.kill(pid, signal.SIGKILL)

    def returned() -> bool:
        return cluster.workspace.running().processes.get(name, pid) != pid

    assert searched_while(cluster, returned) > 0
    wait_until(lambda: run("shards", "list", "--controller", cluster.controller).returncode == 0)
    wait_until(lambda: all_serve(cluster))
    assert int(str(listed("shards", cluster)["generation"])) >= generation


def test_a_second_cluster_beside_the_first_stops_without_a_trace(
    cluster: RunningCluster, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "second")
    with running_cluster(workspace, "--shards", "1", "--routers", "1") as second:
        assert "nothing to search yet" in (workspace.root / "up.err").read_text()
        assert {second.router, second.controller}.isdisjoint({cluster.router, cluster.controller})
        family = descendants(second.process.pid)
        names = {process.name for process in family}
        assert {"gcs_server", "raylet"} <= names
        ray_folder = Path(workspace.ray_record_path.read_text())
        assert ray_folder.is_dir()
        assert second.stop(signal.SIGINT) == 0
        assert alive(family) == []
        assert not ray_folder.exists()
        assert second.process.stdout is not None
        assert second.process.stdout.read() == ""
    assert run("status", "--workspace", str(workspace.root)).returncode == 1
    assert all_serve(cluster)


def test_down_stops_a_cluster_and_a_killed_one_takes_its_processes_along(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "third")
    options = ("--shards", "1", "--routers", "1")
    with running_cluster(workspace, *options) as third:
        family = descendants(third.process.pid)
        done = run("down", "--workspace", str(workspace.root))
        assert (done.returncode, done.stdout) == (0, f"Stopped the cluster in {workspace.root}.\n")
        assert third.process.wait(10) == 0
        assert alive(family) == []
    with running_cluster(workspace, *options) as fourth:
        family = descendants(fourth.process.pid)
        fourth.process.kill()
        wait_until(lambda: alive(family) == [], within_s=30)
    again = run("down", "--workspace", str(workspace.root))
    assert again.returncode == 1
    assert again.stderr == f"headrace: no cluster runs in {workspace.root}; `headrace up` starts one\n"


def test_a_cluster_can_be_stopped_while_it_starts(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "fifth")
    process = start(workspace)
    try:
        wait_until(lambda: any(p.name == "gcs_server" for p in descendants(process.pid)))
        family = descendants(process.pid)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert alive(family) == []
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        assert process.stdout.read() == ""
        process.stdout.close()


def test_a_cluster_that_cannot_start_says_why(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path / "sixth")
    workspace.state_dir.mkdir(parents=True)
    workspace.placement_path.write_text("{")
    done = run("up", "--workspace", str(workspace.root))
    assert done.returncode == 1
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("headrace: controller does not start: placement snapshot")
    assert str(workspace.placement_path) in last


def test_rules_let_in_those_who_may_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = make_workspace(tmp_path / "w")
    roles = {"web": ["search"], "oncall": ["operator"]}
    callers = [{"name": name, "token_sha256": digest(name), "roles": held} for name, held in roles.items()]
    access = tmp_path / "access.json"
    access.write_text(json.dumps({"callers": callers}))
    where = ("--workspace", str(workspace.root))
    wanted = {"web": (0, 1), "oncall": (1, 0), "nobody": (1, 1)}
    with running_cluster(workspace, "--routers", "1", "--shards", "1", "--access", str(access)):
        for token, codes in wanted.items():
            monkeypatch.setenv("HEADRACE_TOKEN", token)
            search, status = run("search", "red mug", *where), run("status", *where)
            assert (search.returncode, status.returncode) == codes, f"{token}: {search} {status}"
            assert "Traceback" not in search.stderr + status.stderr


def test_rules_that_are_wrong_stop_a_cluster_before_it_starts(tmp_path: Path) -> None:
    access = tmp_path / "access.json"
    access.write_text('{"callers": [{"name": "web", "token_sha256": "web", "roles": ["search"]}]}')
    done = run("up", "--workspace", str(tmp_path / "w"), "--access", str(access))
    assert done.returncode == 1
    assert "callers[0]: token_sha256 is not 64 lower-case hex digits" in done.stderr
    assert "Traceback" not in done.stderr
