"""`headrace up --consul`: a real agent keeps the placement, and its death costs no search."""

import asyncio
import base64
import json
import os
import re
import signal
import subprocess
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

from deploy.settings import PROJECT_ROOT
from router.client import HeadraceClient
from tests.deploy.running_cluster import (
    RunningCluster,
    headrace,
    make_workspace,
    run,
    running_cluster,
    wait_until,
)
from tests.services.consul_agent import ConsulAgent, make_certificates, make_tokens
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


def test_an_agent_that_asks_for_certificate_and_token_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With no more rights than the policies that we ship give."""
    hcl, tls = make_certificates(tmp_path)
    hcl += 'acl { enabled = true, default_policy = "deny" }'
    with ConsulAgent(tmp_path / "agent", hcl=hcl, tls=tls) as guarded:
        files = [PROJECT_ROOT / "deploy" / f"consul-{kind}.hcl" for kind in ("policy", "reader-policy")]
        tokens = make_tokens(guarded, {"cluster": files, "reader": files[1:]})
        consul = ["--consul", f"https://{guarded.address}", "--consul-ca", str(tls.ca_path)]
        consul += ["--consul-cert", str(tls.cert_path), "--consul-key", str(tls.key_path)]
        monkeypatch.setenv("HEADRACE_CONSUL_TOKEN", tokens["cluster"])
        workspace = make_workspace(tmp_path / "ws")
        with running_cluster(workspace, "--shards", "1", "--routers", "1", *consul) as cluster:
            assert generation(cluster) > 0
            monkeypatch.setenv("HEADRACE_CONSUL_TOKEN", tokens["reader"])
            found: dict[str, object] = {}

            def complete() -> bool:
                done = run("members", "--json", *consul)
                assert done.returncode == 0, done.stderr
                found.update(json.loads(done.stdout))
                members = found["members"]
                assert isinstance(members, list)
                kinds = sorted(member["kind"] for member in members if member["passing"])
                return kinds == ["candidate", "controller", "router", "shard"]

            wait_until(complete)
            assert found["leader"] == cluster.controller
            monkeypatch.delenv("HEADRACE_CONSUL_TOKEN")
            assert "ACL" in run("members", *consul).stderr


def test_the_members_in_use_are_told_as_they_change(agent: ConsulAgent, elected: RunningCluster) -> None:
    where = ("--consul", agent.address, "--consul-prefix", "elected")
    wait_until(lambda: passing(agent, "headrace-shard", "elected") != [])
    with subprocess.Popen(
        headrace("members", *where, "--follow", "router"), stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT
    ) as following:
        assert following.stdout is not None
        assert json.loads(following.stdout.readline()) == {elected.router: elected.router}
        following.kill()
    shown = run("members", *where)
    assert shown.returncode == 0, shown.stderr
    assert "shard-0" in shown.stdout
    assert run("members", "--consul", agent.address, "--follow", "ray").returncode == 1


def test_certificates_without_tls_are_refused(tmp_path: Path) -> None:
    done = run("members", "--consul", "127.0.0.1:1", "--consul-ca", str(tmp_path / "ca.pem"))
    assert done.returncode == 1
    assert "https://127.0.0.1:1" in done.stderr


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
