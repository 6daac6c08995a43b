"""`headrace controller` and `router` without a supervisor, and `headrace up` over a Ray that runs already."""

import asyncio
import contextlib
import select
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from deploy.settings import PROJECT_ROOT
from deploy.workspace import Workspace
from router.client import HeadraceClient
from tests.deploy.running_cluster import headrace, make_workspace, run, running_cluster, wait_until
from tests.services.ray_nodes import RayNodes, ray_nodes
from tests.shards.bundles import SURFACE

pytestmark = pytest.mark.cluster

_READY_S = 120.0


@pytest.fixture(scope="module")
def nodes() -> Iterator[RayNodes]:
    with ray_nodes() as nodes:
        nodes.add(2, cpus=2)
        yield nodes


@contextmanager
def foreground(
    workspace: Workspace, command: str, *options: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Run a command from READY on; gives its HOST:PORT."""
    log = workspace.root / f"{command}.err"
    with log.open("a") as errors:
        process = subprocess.Popen(
            headrace(command, "--workspace", str(workspace.root), "--port", "0", *options),
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], _READY_S)
        line = process.stdout.readline() if readable else ""
        assert line.startswith(f"READY {command}="), f"{line!r}, {log.read_text()}"
        yield line.split("=")[1].strip(), process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()
        process.stdout.close()


def is_healthy(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            answer = HealthStub(channel).Check(HealthCheckRequest(), timeout=2)
        except grpc.RpcError:
            return False
        return bool(answer.status == HealthCheckResponse.SERVING)


def found(router: str) -> bool:
    async def search() -> bool:
        async with HeadraceClient(router, timeout_s=5.0) as client:
            result = await client.search(SURFACE, "red mug", user_id="u1", page_size=5)
            return bool(result.items)

    return asyncio.run(search())


def pids(controller: str) -> str:
    done = run("shards", "list", "--json", "--controller", controller)
    assert done.returncode == 0, done.stderr
    return "".join(line for line in done.stdout.splitlines() if '"pid"' in line)


def test_a_controller_and_a_router_of_their_own_serve_over_a_ray_that_runs(
    nodes: RayNodes, tmp_path: Path
) -> None:
    workspace = make_workspace(tmp_path / "w")
    release = workspace.releases_dir / f"{SURFACE}.json"
    joined = ("--ray-address", nodes.address, "--join-ray", "--shard-cpus", "1", "--insecure")
    before = nodes.alive()
    with foreground(workspace, "controller", *joined) as (controller, process):
        assert nodes.alive() == before + 1
        assert is_healthy(controller)
        with foreground(workspace, "router", "--controller", controller) as (router, router_process):
            done = run("release", "deploy", str(release), "--controller", controller)
            assert done.returncode == 0, done.stderr
            wait_until(lambda: is_healthy(router))
            assert found(router)
            assert {nodes.node_of("shard-0"), nodes.node_of("shard-1")}.isdisjoint({""})
            second = run(
                "controller", "--workspace", str(workspace.root), "--ray-address", nodes.address, "--insecure"
            )
            assert "runs in" in second.stderr
            known = pids(controller)
            process.terminate()
            assert process.wait(30) == 0
            wait_until(lambda: nodes.alive() == before)
            # Routers and shards need no controller; the next one finds the same shards.
            assert found(router)
            router_process.terminate()
            assert router_process.wait(30) == 0
    with foreground(workspace, "controller", *joined) as (controller, process):
        wait_until(lambda: pids(controller) == known)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0


def test_a_cluster_comes_up_over_a_ray_that_runs_and_leaves_it_alone(nodes: RayNodes, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w")
    before = nodes.alive()
    with running_cluster(
        workspace, "--ray-address", nodes.address, "--insecure", "--routers", "1"
    ) as cluster:
        assert "ray" not in workspace.running().processes
        assert found(cluster.router)
        assert cluster.stop() == 0
    assert nodes.alive() == before
