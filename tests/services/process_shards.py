"""Real shards, each in a process of its own that may be killed: a `ShardHost` without Ray."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from shards.errors import Unavailable


class ProcessShards:
    """Starts a shard once; one that was killed stays dead until somebody restarts it."""

    def __init__(self, state_dir: Path, settings: dict[str, float]) -> None:
        self._state_dir = state_dir
        self._settings = settings
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._addresses: dict[str, str] = {}

    async def start(self, shard_id: str) -> None:
        if shard_id in self._processes:
            return
        arguments = (shard_id, str(self._state_dir), json.dumps(self._settings))
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.services.shard_process",
            *arguments,
            stdout=asyncio.subprocess.PIPE,
        )
        self._processes[shard_id] = process
        assert process.stdout is not None
        self._addresses[shard_id] = (await process.stdout.readline()).decode().strip()

    async def address(self, shard_id: str) -> str:
        if shard_id not in self._addresses:
            raise Unavailable(f"{shard_id} does not run")
        return self._addresses[shard_id]

    async def restart(self, shard_id: str) -> None:
        await self.stop(shard_id)
        await self.start(shard_id)

    async def scale(self, shard_ids: Sequence[str], gpu_fraction: float | None) -> None:
        """Have room for any number."""

    async def stop(self, shard_id: str) -> None:
        await self.kill(shard_id)
        self._processes.pop(shard_id, None)
        self._addresses.pop(shard_id, None)

    async def kill(self, shard_id: str) -> None:
        """Kill the process, as `kill -9` does."""
        process = self._processes.get(shard_id)
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()

    def living(self) -> dict[str, str]:
        """Return the addresses of the shards that run."""
        running = {s for s, process in self._processes.items() if process.returncode is None}
        return {s: address for s, address in self._addresses.items() if s in running}

    async def kill_all(self) -> None:
        for shard_id in list(self._processes):
            await self.kill(shard_id)


@asynccontextmanager
async def process_shards(state_dir: Path, **settings: float) -> AsyncIterator[ProcessShards]:
    """Give a host whose shards all end with the block; `settings` are those of `ShardConfig`."""
    host = ProcessShards(state_dir, settings)
    try:
        yield host
    finally:
        await host.kill_all()
