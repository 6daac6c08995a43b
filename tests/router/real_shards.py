"""Real shards before a real router: in this process, or one in a process of its own that may be killed."""

import asyncio
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from router.credentials import NOTHING, Credentials
from services.access import AccessRules
from services.shard_config import ShardConfig
from services.shard_record import HeldBundle, ShardRecord, write_record
from services.shard_server import ShardServer
from services.telemetry_settings import SILENT, Telemetry
from shards.placement import Placement
from shards.release import Release
from shards.replica import ReplicaState
from tests.router.running_router import placed
from tests.services.shard_client import connect


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Bundles below `root` and the release that pins them."""

    root: Path
    release: Release

    def recorded(self, config: ShardConfig) -> ShardConfig:
        """Let the shard find all bundles on its record, as if it had held them in its life before."""
        bundles = tuple(
            HeldBundle(model=model, stage=stage, path=self.root / model.model / model.version)
            for model, stage in self.release.models().items()
        )
        write_record(config.record_path, ShardRecord(bundles=bundles))
        return config

    def placed_on(self, addresses: dict[str, str]) -> Placement:
        """Return the placement of every bundle on every one of these shards."""
        holders = {str(model): list(addresses) for model in self.release.models()}
        return placed([self.release], holders, addresses)

    async def ready(self, address: str, credentials: Credentials = NOTHING) -> None:
        """Return when the shard serves every bundle."""
        async with connect(address, credentials) as client:
            await client.wait_for(dict.fromkeys(self.release.models(), ReplicaState.READY))


@asynccontextmanager
async def real_shards(
    models: Models,
    folder: Path,
    shard_ids: Iterable[str],
    telemetry: Telemetry = SILENT,
    *,
    access: AccessRules | None = None,
    access_path: str = "",
    tls_path: str = "",
    credentials: Credentials = NOTHING,
) -> AsyncIterator[dict[str, str]]:
    """Run shards that hold everything in this process; gives the address of each by its id."""
    async with AsyncExitStack() as stack:
        addresses = {}
        for shard_id in shard_ids:
            config = ShardConfig(
                shard_id=shard_id,
                state_dir=folder,
                telemetry=telemetry,
                access=access,
                access_path=access_path,
                tls_path=tls_path,
            )
            server = await stack.enter_async_context(ShardServer(models.recorded(config)))
            await models.ready(server.address, credentials)
            addresses[shard_id] = server.address
        yield addresses


@dataclass(frozen=True, slots=True)
class ShardProcess:
    """A shard in a process of its own."""

    address: str
    process: asyncio.subprocess.Process


@asynccontextmanager
async def shard_process(models: Models, folder: Path, shard_id: str) -> AsyncIterator[ShardProcess]:
    """Run a shard that holds everything in another process until the block ends or a test kills it."""
    models.recorded(ShardConfig(shard_id=shard_id, state_dir=folder))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.router.real_shards",
        shard_id,
        str(folder),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        address = (await process.stdout.readline()).decode().strip()
        await models.ready(address)
        yield ShardProcess(address, process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def _serve(shard_id: str, folder: Path) -> None:
    async with ShardServer(ShardConfig(shard_id=shard_id, state_dir=folder)) as server:
        sys.stdout.write(f"{server.address}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], Path(sys.argv[2])))
