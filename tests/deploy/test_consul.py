"""`headrace up --consul`: a real agent keeps the placement, and its death costs no search."""

import asyncio
import base64
import json
import os
import re
import signal
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from router.client import HeadraceClient
from tests.deploy.running_cluster import RunningCluster, make_workspace, run, running_cluster, wait_until
from tests.services.consul_agent import ConsulAgent
from tests.shards.bundles import SURFACE

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsulAgent]:
    with ConsulAgent(tmp_path_factory.mktemp("agent")) as started:
        yield started


def asked(agent: ConsulAgent, path: str) -> object:
    with urllib.request.urlopen(f"http://{agent.address}/v1/{path}", timeout=5) as answer:
        return json.load(answer)


def passing(agent: ConsulAgent, service: str, prefix: str) -> list[str]:
    """Return the addresses of a cluster's healthy members of one kind."""
    meant = quote(f'Service.Meta.cluster == "{prefix}"')
    found = asked(agent, f"health/service/{service}?passing=true&filter={meant}")
    assert isinstance(found, list)
    return [f"{entry['Service']['Address']}:{entry['Service']['Port']}" for entry in found]


def generation(cluster: RunningCluster) -> int:
    async def main() -> int:
        async with HeadraceClient(cluster.router, timeout_s=10.0) as client:
            return (await client.search(SURFACE, "red mug", user_id="u1")).generation

    return asyncio.run(main())


@dataclass(frozen=True)
class Lock:
    """The leader's lock, as Consul shows it."""

    address: str
    pid: int
    """0 where nobody leads."""


def lock(agent: ConsulAgent, prefix: str) -> Lock:
    found = asked(agent, f"kv/{prefix}/leader")
    assert isinstance(found, list)
    if "Session" not in found[0]:
        return Lock("", 0)
    info = asked(agent, f"session/info/{found[0]['Session']}")
    assert isinstance(info, list)
    named = re.search(r"process (\d+) on", info[0]["Name"]) if info else None
    return Lock(base64.b64decode(found[0]["Value"]).decode(), int(named[1]) if named else 0)


def serves(cluster: RunningCluster) -> bool:
    return run("shards", "list", "--json", "--controller", cluster.controller).returncode == 0


@pytest.fixture(scope="module")
def elected(agent: ConsulAgent, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningCluster]:
    """A cluster with two controllers."""
    workspace = make_workspace(tmp_path_factory.mktemp("elected"))
    options = ("--shards", "1", "--routers", "1", "--controllers", "2", "--consul", agent.address)
    with running_cluster(workspace, *options, "--consul-prefix", "elected") as cluster:
        yield cluster


def next_leader(agent: ConsulAgent, cluster: RunningCluster, before: Lock) -> float:
    """Wait until another controller leads and serves; returns after how many seconds."""
    began_s = time.monotonic()
    wait_until(lambda: lock(agent, "elected").pid not in (0, before.pid))
    wait_until(lambda: is_healthy(cluster.controller))
    return time.monotonic() - began_s


def is_healthy(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            health = HealthStub(channel).Check(HealthCheckRequest(), timeout=1.0)
        except grpc.RpcError:
            return False
        return bool(health.status == HealthCheckResponse.SERVING)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_another_controller_leads_soon_after_the_leader(
    agent: ConsulAgent, elected: RunningCluster, number: signal.Signals
) -> None:
    before = lock(agent, "elected")
    assert before.address == elected.controller
    assert before.pid in elected.workspace.running().processes.values()
    known = generation(elected)
    os.kill(before.pid, number)
    assert next_leader(agent, elected, before) < 5.0
    assert generation(elected) >= known
    assert serves(elected)
    # Whoever was killed, or ended because it hung, stands again.
    wait_until(lambda: len(passing(agent, "headrace-candidate", "elected")) == 2)


def test_an_agent_that_returns_empty_gets_leader_members_and_placement_back(
    agent: ConsulAgent, elected: RunningCluster
) -> None:
    known = generation(elected)
    agent.kill()
    wait_until(lambda: not is_healthy(elected.controller))
    assert generation(elected) == known
    agent.start()
    wait_until(lambda: is_healthy(elected.controller))
    kept = asked(agent, "kv/elected/placement?raw")
    assert isinstance(kept, dict)
    assert int(kept["generation"]) >= known
    for service, address in (("router", elected.router), ("controller", elected.controller)):
        wait_until(lambda s=service, a=address: passing(agent, f"headrace-{s}", "elected") == [a])  # type: ignore[misc]
    assert serves(elected)


def test_several_controllers_without_consul_are_refused(tmp_path: Path) -> None:
    done = run("up", "--workspace", str(tmp_path), "--controllers", "2")
    assert done.returncode == 1
    assert "several controllers need Consul" in done.stderr


def test_an_agent_address_that_is_none_is_refused(tmp_path: Path) -> None:
    done = run("up", "--workspace", str(tmp_path), "--consul", "nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "HOST:PORT" in done.stderr


def test_consul_keeps_the_placement_and_may_die(agent: ConsulAgent, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "ws")
    where = ("--consul", agent.address, "--consul-prefix", "shop")
    with running_cluster(workspace, "--shards", "1", "--routers", "1", *where) as cluster:
        with urllib.request.urlopen(f"http://{agent.address}/v1/kv/shop/placement?raw", timeout=5) as kept:
            assert json.load(kept)["generation"] == str(generation(cluster))
        wait_until(lambda: passing(agent, "headrace-router", "shop") == [cluster.router])
        wait_until(lambda: passing(agent, "headrace-controller", "shop") == [cluster.controller])
        agent.kill()
        assert generation(cluster) > 0
