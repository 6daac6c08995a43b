"""Routers and shards, as real processes, serve and restart while controller and Consul are both gone."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

from deploy.settings import ClusterSettings, child_environment
from deploy.workspace import Workspace
from protos.headrace.v1 import shard_service_pb2
from router.client import HeadraceClient, SearchError
from services.codec import model_version_to_proto
from services.consul_client import ConsulClient
from services.consul_placement_store import ConsulPlacementStore
from services.placement_store import Committed
from tests.deploy.running_cluster import PATIENT, make_workspace
from tests.deploy.small_cluster import shard_stub
from tests.router.running_router import placed
from tests.services.consul_agent import ConsulAgent
from tests.services.debian_packages import free_ports
from tests.shards.bundles import SURFACE


@contextmanager
def process(*command: str, env: dict[str, str] | None = None) -> Iterator[str]:
    """Run a module until the block ends, then kill it; gives the first line that it prints."""
    with subprocess.Popen(
        (sys.executable, "-m", *command), stdout=subprocess.PIPE, text=True, env=env
    ) as started:
        assert started.stdout is not None
        try:
            yield started.stdout.readline().strip()
        finally:
            started.kill()


@contextmanager
def router(settings: ClusterSettings) -> Iterator[str]:
    settings.folders.state_dir.mkdir(exist_ok=True)
    command = ("deploy.router_process", str(os.getpid()), settings.to_argument())
    with process(*command, env=child_environment(settings.folders.ray_token_path)) as line:
        yield str(json.loads(line)["address"])


def shard(workspace: Workspace) -> AbstractContextManager[str]:
    return process("tests.services.shard_process", "shard-0", str(workspace.state_dir))


async def load(workspace: Workspace, address: str) -> None:
    async with shard_stub(address) as stub:
        for model in PATIENT.models():
            path = workspace.models_dir / model.model / model.version
            request = shard_service_pb2.LoadModelRequest(model=model_version_to_proto(model), path=str(path))
            await stub.LoadModel(request, timeout=30)


async def commit(agent: ConsulAgent, address: str) -> None:
    holders = {str(model): ["shard-0"] for model in PATIENT.models()}
    placement = placed([PATIENT], holders, {"shard-0": address})
    async with ConsulClient(agent.settings("last")) as client:
        assert isinstance(await ConsulPlacementStore(client).commit(0, placement), Committed)


async def complete(address: str) -> None:
    """Search until the answer is complete: a process that was just started may still load."""
    async with HeadraceClient(address, timeout_s=10.0) as client, asyncio.timeout(60):
        while True:
            with suppress(SearchError):
                if (await client.search(SURFACE, "red mug", user_id="u1")).complete:
                    return
            await asyncio.sleep(0.05)


def test_all_restart_from_the_last_placement_they_knew(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "ws")
    with ConsulAgent(tmp_path / "agent") as agent:
        # Nobody listens at the controller's port, now or later.
        settings = ClusterSettings(
            workspace=str(workspace.root),
            controller_port=free_ports(1)[0],
            consul_address=agent.address,
            consul_prefix="last",
        )
        with shard(workspace) as first:
            asyncio.run(load(workspace, first))
            asyncio.run(commit(agent, first))
            with router(settings) as address:
                asyncio.run(complete(address))
                agent.kill()
                asyncio.run(complete(address))
        with shard(workspace) as second, router(settings) as address:
            assert second == first, "where routers look for it"
            asyncio.run(complete(address))
