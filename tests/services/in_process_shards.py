"""Real shards in this very event loop: a `ShardHost` without Ray."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from services.shard_config import ShardConfig
from services.shard_server import ShardServer
from shards.errors import Unavailable


class InProcessShards:
    """Runs each shard in a task of its own, because what a server opens it must close itself."""

    def __init__(self, state_dir: Path, config: Mapping[str, Any]) -> None:
        self.started: list[str] = []
        self.restarted: list[str] = []
        self.scaled: list[tuple[tuple[str, ...], float | None]] = []
        self._state_dir = state_dir
        self._config = config
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._addresses: dict[str, str] = {}

    async def start(self, shard_id: str) -> None:
        self.started.append(shard_id)
        if shard_id not in self._tasks:
            serving = asyncio.Event()
            self._tasks[shard_id] = asyncio.create_task(self._serve(shard_id, serving))
            await serving.wait()

    async def address(self, shard_id: str) -> str:
        if shard_id not in self._addresses:
            raise Unavailable(f"{shard_id} does not run")
        return self._addresses[shard_id]

    async def restart(self, shard_id: str) -> None:
        self.restarted.append(shard_id)
        await self.stop(shard_id)
        await self.start(shard_id)

    async def scale(self, shard_ids: Sequence[str], gpu_fraction: float | None) -> None:
        self.scaled.append((tuple(shard_ids), gpu_fraction))

    async def stop(self, shard_id: str) -> None:
        """End a shard; one that is started again is as one whose process had died."""
        self._addresses.pop(shard_id, None)
        if task := self._tasks.pop(shard_id, None):
            task.cancel()
            await asyncio.wait([task])

    async def _serve(self, shard_id: str, serving: asyncio.Event) -> None:
        fields: dict[str, Any] = {"shard_id": shard_id, "state_dir": self._state_dir, "grace_s": 0}
        config = ShardConfig(**fields | dict(self._config))
        async with ShardServer(config) as server:
            self._addresses[shard_id] = server.address
            serving.set()
            await asyncio.Event().wait()

    async def stop_all(self) -> None:
        for shard_id in list(self._tasks):
            await self.stop(shard_id)


@asynccontextmanager
async def in_process_shards(state_dir: Path, **config: Any) -> AsyncIterator[InProcessShards]:
    """Give a host whose shards, so configured, all end with the block."""
    host = InProcessShards(state_dir, config)
    try:
        yield host
    finally:
        await host.stop_all()
