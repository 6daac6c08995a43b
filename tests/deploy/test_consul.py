"""`headrace up --consul`: a real agent keeps the placement, and its death costs no search."""

import asyncio
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

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


def passing(agent: ConsulAgent, service: str) -> list[str]:
    found = asked(agent, f"health/service/{service}?passing=true")
    assert isinstance(found, list)
    return [f"{entry['Service']['Address']}:{entry['Service']['Port']}" for entry in found]


def generation(cluster: RunningCluster) -> int:
    async def main() -> int:
        async with HeadraceClient(cluster.router, timeout_s=10.0) as client:
            return (await client.search(SURFACE, "red mug", user_id="u1")).generation

    return asyncio.run(main())


def test_consul_keeps_the_placement_and_may_die(agent: ConsulAgent, tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "ws")
    where = ("--consul", agent.address, "--consul-prefix", "shop")
    with running_cluster(workspace, "--shards", "1", "--routers", "1", *where) as cluster:
        with urllib.request.urlopen(f"http://{agent.address}/v1/kv/shop/placement?raw", timeout=5) as kept:
            assert json.load(kept)["generation"] == str(generation(cluster))
        wait_until(lambda: passing(agent, "headrace-router") == [cluster.router])
        wait_until(lambda: passing(agent, "headrace-controller") == [cluster.controller])
        agent.kill()
        assert generation(cluster) > 0


def test_an_agent_address_that_is_none_is_refused(tmp_path: Path) -> None:
    done = run("up", "--workspace", str(tmp_path), "--consul", "nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "HOST:PORT" in done.stderr
