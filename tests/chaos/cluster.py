"""The cluster under test: Ray nodes, a Consul agent, and `headrace up` over both, all real processes."""

import asyncio
import contextlib
import json
import os
import signal
import time
from base64 import b64decode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from deploy.processes import processes
from deploy.workspace import Workspace
from router.client import HeadraceClient
from tests.chaos import workload
from tests.chaos.operator_desk import OperatorDesk
from tests.deploy.running_cluster import RunningCluster, running_cluster
from tests.services.consul_agent import ConsulAgent
from tests.services.ray_nodes import RayNodes, ray_nodes

CPUS_PER_NODE = 2
"""Logical, one for each shard: room for all shards, should a node of three be lost."""

_SHARD_MEMORY_MB = 512
_MEASURED_TIMES = 3


@dataclass(slots=True, kw_only=True)
class ChaosCluster:
    """A running cluster and what is to be done to it.

    `shards` is how many it shall have now, and `moves` how many a scenario of planned moves makes.
    """

    up: RunningCluster
    nodes: RayNodes
    agent: ConsulAgent
    desk: OperatorDesk
    root: Path
    shards: int
    moves: int

    @property
    def controllers(self) -> list[str]:
        """Return the names of the controllers' processes."""
        return [name for name in self.up.workspace.running().processes if name.startswith("controller")]

    @property
    def routers(self) -> list[str]:
        """Return the names of the routers' processes."""
        return [name for name in self.up.workspace.running().processes if name.startswith("router")]

    def leader_pid(self) -> int:
        """Return the process of the leading controller, 0 while none leads; its session in Consul tells."""
        with contextlib.suppress(OSError, ValueError, IndexError, TypeError):
            (entry,) = json.loads(self.agent.request("GET", "/v1/kv/headrace/leader"))
            if not b64decode(entry["Value"] or b""):
                return 0
            (session,) = json.loads(self.agent.request("GET", f"/v1/session/info/{entry['Session']}"))
            return int(session["Name"].partition(", process ")[2].split()[0])
        return 0

    def shard_pid(self, shard_id: str) -> int:
        """Return the process of a shard."""
        sight = self.desk.until(lambda seen: shard_id in seen.lives, 20.0, f"{shard_id} is listed")
        return next(int(shard.pid) for shard in sight.shards if shard.shard_id == shard_id)

    def problems(self) -> list[str]:
        """Return what keeps the cluster from full strength now."""
        sight = self.desk.look()
        if sight is None:
            return ["no controller answers"]
        alive = {process.pid for process in processes() if not process.zombie}
        told = (self.up.workspace.logs_dir / "supervisor.log").read_text()
        gone = [
            f"{name} does not serve"
            for name, pid in self.up.workspace.running().processes.items()
            if pid not in alive or f"as process {pid}\n" not in told
        ]
        return gone + sight.problems(self.shards)

    def whole(self, within_s: float, changed: dict[str, str] | None = None) -> float:
        """Wait for full strength and return the monotonic time at which it was seen.

        Shards in `changed` must live another life than that given. Raises TimeoutError with what is missing.
        """
        late_s = time.monotonic() + within_s
        while True:
            problems = self.problems()
            if not problems and changed:
                problems = self._unchanged(changed)
            if not problems:
                return time.monotonic()
            if time.monotonic() > late_s:
                raise TimeoutError(f"no full strength within {within_s:.0f} s: {'; '.join(problems[:6])}")
            time.sleep(0.05)

    def _unchanged(self, changed: dict[str, str]) -> list[str]:
        sight = self.desk.look()
        lives = sight.lives if sight else {}
        return [f"{shard} still lives" for shard, life in changed.items() if lives.get(shard, life) == life]

    def logs(self) -> Iterator[tuple[str, str]]:
        """Yield the name and the end of every log."""
        files = [*self.up.workspace.logs_dir.glob("*.log"), self.root / "workspace" / "up.err"]
        for path in sorted(files):
            yield path.name, path.read_text(errors="replace")[-4_000:]


@contextmanager
def chaos_cluster(
    root: Path,
    *,
    shards: int,
    nodes: int,
    moves: int,
    options: Sequence[str] = (),
    prepare: Callable[[Workspace], None] = lambda _: None,
) -> Iterator[ChaosCluster]:
    """Run a cluster of two routers, two controllers and these shards, each bundle on two of them.

    More `options` are those of `headrace up`; `prepare` adds to its workspace.
    """
    workspace = workload.make_workspace(root / "workspace")
    prepare(workspace)
    with ExitStack() as exits:
        agent = exits.enter_context(ConsulAgent(root / "consul", data=root / "consul" / "data"))
        ray = exits.enter_context(ray_nodes())
        ray.add(nodes, cpus=CPUS_PER_NODE)
        every = [
            *("--shards", str(shards), "--replicas", "2", "--routers", "2", "--controllers", "2"),
            *("--ray-address", ray.address, "--insecure", "--consul", agent.address),
            *("--shard-memory-mb", str(_SHARD_MEMORY_MB)),
        ]
        up = exits.enter_context(running_cluster(workspace, *every, *options))
        desk = OperatorDesk(up.controller)
        exits.callback(desk.close)
        yield ChaosCluster(up=up, nodes=ray, agent=agent, desk=desk, root=root, shards=shards, moves=moves)


def measured_answers(router: str) -> dict[tuple[str, str], tuple[str, Sequence[str]]]:
    """Return what models answer while all is calm; raises AssertionError where replicas differ."""

    async def page(client: HeadraceClient, surface: str, query: str) -> tuple[str, tuple[str, ...]]:
        found = await client.search(surface, query, page_size=workload.PAGE_SIZE, timeout_s=10.0)
        assert found.complete, (surface, query, found.gaps)
        return found.release, tuple(item.item_id for item in found.items)

    async def main() -> dict[tuple[str, str], tuple[str, Sequence[str]]]:
        answers: dict[tuple[str, str], tuple[str, Sequence[str]]] = {}
        async with HeadraceClient(router) as client:
            for surface, query in workload.to_measure():
                pages = {await page(client, surface, query) for _ in range(_MEASURED_TIMES)}
                assert len(pages) == 1, (surface, query, pages)
                answers[surface, query] = pages.pop()
        return answers

    return asyncio.run(main())


def send(pid: int, number: signal.Signals) -> float:
    """Send a signal and return when; raises ProcessLookupError for a process that has gone."""
    os.kill(pid, number)
    return time.monotonic()
