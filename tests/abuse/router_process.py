"""A router before a scripted shard, in this process: `python -m tests.abuse.router_process FOLDER`.

It prints HOST:PORT and serves until standard input ends.
"""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from services.malloc_arenas import share_arenas
from tests.router.running_router import running
from tests.router.scripted_shard import ScriptedShard
from tests.router.test_releases import TWO_ANSWERS, two_releases


async def main(folder: Path) -> None:
    """Serve."""
    share_arenas()
    async with ScriptedShard("s1", TWO_ANSWERS) as shard:
        placement = replace(two_releases(), endpoints={"s1": shard.address})
        async with running(placement, folder) as router:
            sys.stdout.write(router.address + "\n")
            sys.stdout.flush()
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
