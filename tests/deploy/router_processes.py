"""Routers as processes that share one port, before shards of the test's own."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from deploy.ports import claim_port
from deploy.settings import ClusterSettings, child_environment
from router.placement_cache import write_cache
from shards.placement import Placement


class RouterProcesses:
    """Starts routers that serve the placement of the cache; `target` is where all of them listen.

    At `controller` they look for one; nobody needs to be there.
    """

    def __init__(self, settings: ClusterSettings) -> None:
        self._settings = settings
        self.target = f"{settings.host}:{settings.router_port}"
        self.controller = f"{settings.host}:{settings.controller_port}"
        self._processes: list[asyncio.subprocess.Process] = []

    async def start(self) -> asyncio.subprocess.Process:
        """Return a router that serves."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "deploy.router_process",
            str(os.getpid()),
            self._settings.to_argument(),
            stdout=asyncio.subprocess.PIPE,
            env=child_environment(self._settings.folders.ray_token_path),
        )
        self._processes.append(process)
        assert process.stdout is not None
        assert b"address" in await process.stdout.readline()
        return process

    async def close(self) -> None:
        """Kill what still runs."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()
            await process.wait()


@asynccontextmanager
async def router_processes(placement: Placement, root: Path) -> AsyncIterator[RouterProcesses]:
    """Give routers of this placement, without a controller, until the block ends."""
    settings = ClusterSettings(workspace=str(root))
    settings = replace(
        settings, router_port=claim_port(settings.host, 0), controller_port=claim_port(settings.host, 0)
    )
    await write_cache(settings.folders.router_cache_path, placement)
    processes = RouterProcesses(settings)
    try:
        yield processes
    finally:
        await processes.close()
