"""A shard in a process of its own, to be killed; its arguments are its id and the folder of its state."""

import asyncio
import sys
from pathlib import Path

from services.shard_config import ShardConfig
from services.shard_server import ShardServer


async def serve(shard_id: str, state_dir: str) -> None:
    """Print the address, and serve until killed."""
    async with ShardServer(ShardConfig(shard_id=shard_id, state_dir=Path(state_dir), grace_s=0)) as shard:
        sys.stdout.write(f"{shard.address}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
