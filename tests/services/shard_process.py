"""A shard in a process of its own, to be killed: `shard_process ID STATE_DIR [SETTINGS]`.

The settings are those of `ShardConfig`, in JSON.
"""

import asyncio
import json
import sys
from pathlib import Path

from services.shard_config import ShardConfig
from services.shard_server import ShardServer


async def serve(shard_id: str, state_dir: str, settings: str = "{}") -> None:
    """Print the address, and serve until killed."""
    config = ShardConfig(shard_id=shard_id, state_dir=Path(state_dir), grace_s=0, **json.loads(settings))
    async with ShardServer(config) as shard:
        sys.stdout.write(f"{shard.address}\n")
        sys.stdout.flush()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
