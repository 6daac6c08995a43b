"""Brings a cluster up on this machine, keeps its processes running and takes all of them down.

    supervisor ── ray ── gcs_server, raylet ── shard-0, shard-1 …
               ├─ controller             or controller-0, controller-1 …, of whom one leads
               ├─ router-0, router-1 …
               └─ console                where there shall be one

The controller joins the Ray of the first process, and the routers follow the controller. A process that
dies is started again in its old place; when Ray dies, so do the shards, and the controller starts anew
with the next Ray. A Ray that was there before is joined instead, and keeps its shards. Whatever else
descends from the supervisor is ended with it, and if it is killed, the kernel tells its children.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from deploy.cluster_access import issue_tokens, supervisor_credentials
from deploy.failures import unwrapped
from deploy.kept_process import KeptProcess, ProcessSpec
from deploy.planning_rules import controller_settings
from deploy.ports import claim_port
from deploy.processes import adopt_orphans, end_children
from deploy.readiness import deploy_releases, wait_until_searchable
from deploy.secret_file import write_secret
from deploy.settings import ClusterSettings, trusted_keys
from deploy.telemetry import telemetry
from deploy.workspace import Running
from services.process_log import log_to
from services.shard_access import SUPERVISOR

Say = Callable[[str], None]
"""Tells the operator what is going on."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a cluster is, HOST:PORT each."""

    router: str
    controller: str
    console: str = ""
    """Empty where there is none."""


WhileUp = Callable[[Addresses], Awaitable[None]]
"""What to do with a cluster that is up; it goes down when this returns."""


def run_cluster(settings: ClusterSettings, while_up: WhileUp, say: Say) -> None:
    """Bring a cluster up, run `while_up`, take the cluster down; SIGINT and SIGTERM end it early.

    Raises `Conflict` when a cluster runs in the workspace already, and what keeps this one from coming
    up. Leaves no process behind, however it ends.
    """
    with settings.folders.claim():
        # Standard error is for the operator.
        log_to(
            settings.folders.logs_dir / "supervisor.log",
            process=SUPERVISOR,
            as_json=telemetry(settings).logs.as_json,
        )
        if not settings.joins_ray:  # Its shards live on, and their notes with them.
            settings.folders.forget_metrics()
        write_secret(settings.folders.ray_token_path)
        issue_tokens(settings)
        trusted_keys(settings)
        controller_settings(settings)
        settings = replace(
            settings,
            router_port=claim_port(settings.host, settings.router_port),
            controller_port=claim_port(settings.host, settings.controller_port),
            console_port=_console_port(settings),
        )
        adopt_orphans()
        try:
            with unwrapped():
                asyncio.run(_until_told(_run(settings, while_up, say)))
        finally:
            end_children()


async def _until_told(running: Awaitable[None]) -> None:
    """Run until the end, or until the first signal; the end is orderly, and no signal cuts it short."""
    task = asyncio.ensure_future(running)
    loop = asyncio.get_running_loop()
    told: list[signal.Signals] = []

    def tell(number: signal.Signals) -> None:
        if not told:
            task.cancel()
        told.append(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, tell, number)
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def _run(settings: ClusterSettings, while_up: WhileUp, say: Say) -> None:
    family = _Family(settings)
    say(f"{'Joining' if settings.joins_ray else 'Starting'} Ray, starting the controller and the routers …")
    async with family.kept():
        try:
            routers = [await router.served() for router in family.routers]
            console = [await process.served() for process in family.consoles]
            addresses = Addresses(routers[0], await family.controllers[0].served(), *console)
            credentials = supervisor_credentials(settings)
            surfaces = await deploy_releases(addresses.controller, settings.folders, say, credentials)
            await wait_until_searchable(addresses.router, surfaces, credentials)
            family.note(addresses)
            await while_up(addresses)
        finally:
            say("Stopping …")


class _Family:
    """The processes of a cluster, and what each needs of the others."""

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self._birth = asyncio.Lock()
        self._addresses = Addresses("", "")
        self.ray = self._kept("ray", "ray", self._ray_settings, before_start=self._clear_orphans)
        self.controllers = [
            self._kept(name, "controller", self._controller_settings) for name in _controller_names(settings)
        ]
        self.routers = [
            self._kept(f"router-{n}", "router", self._router_settings) for n in range(settings.routers)
        ]
        self.consoles = (
            [] if settings.console_port is None else [self._kept("console", "console", self._router_settings)]
        )

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keep all processes running inside the block; at its end stop the routers first and Ray last."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(process.keep()) for process in self._all()]
            try:
                yield
            finally:
                for task in reversed(tasks):
                    # A task whose sibling failed is being cancelled already, and must finish its stop.
                    if not task.cancelling():
                        task.cancel()
                    await asyncio.wait([task])

    def note(self, addresses: Addresses) -> None:
        """Write down for other commands where the cluster is, now and whenever a process is replaced."""
        self._addresses = addresses
        self._note()

    def _all(self) -> list[KeptProcess]:
        own_ray = [] if self._settings.joins_ray else [self.ray]
        return [*own_ray, *self.controllers, *self.routers, *self.consoles]

    def _kept(
        self,
        name: str,
        kind: str,
        settings: Callable[[], Awaitable[ClusterSettings]],
        before_start: Callable[[], None] = lambda: None,
    ) -> KeptProcess:
        async def named() -> ClusterSettings:
            return replace(await settings(), process=name)

        spec = ProcessSpec(
            name=name,
            module=f"deploy.{kind}_process",
            log_path=self._settings.folders.logs_dir / f"{name}.log",
            settings=named,
            before_start=before_start,
        )
        return KeptProcess(spec, self._birth, on_change=self._note)

    async def _ray_settings(self) -> ClusterSettings:
        # A controller that outlived its Ray is of no use: its shards are gone, and Ray's client with them.
        for controller in self.controllers:
            controller.end()
        return self._settings

    async def _controller_settings(self) -> ClusterSettings:
        if self._settings.joins_ray:
            return self._settings
        return replace(self._settings, ray_address=await self.ray.served())

    async def _router_settings(self) -> ClusterSettings:
        return self._settings

    def _note(self) -> None:
        running = Running(
            pid=os.getpid(),
            router=self._addresses.router,
            controller=self._addresses.controller,
            console=self._addresses.console,
            processes={process.name: process.pid for process in self._all() if process.pid},
        )
        self._settings.folders.note(running)

    def _clear_orphans(self) -> None:
        """End what a Ray that was killed has left; the other processes are spared."""
        spared = (*self.controllers, *self.routers, *self.consoles)
        end_children([process.pid for process in spared if process.pid])


def _console_port(settings: ClusterSettings) -> int | None:
    """Return a free port of this machine's loopback, None for no console."""
    return None if settings.console_port is None else claim_port("127.0.0.1", settings.console_port)


def _controller_names(settings: ClusterSettings) -> list[str]:
    """Return the names of the controllers, who have numbers where there are several."""
    if settings.controllers == 1:
        return ["controller"]
    return [f"controller-{number}" for number in range(settings.controllers)]
