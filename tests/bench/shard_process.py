"""A shard in a process of its own, for benchmarks: `python -m tests.bench.shard_process STATE_DIR`."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.settings import PROJECT_ROOT
from services.shard_config import ShardConfig


@contextmanager
def shard_process(state_dir: Path) -> Iterator[str]:
    """Give the address of a shard that ends with the block."""
    command = [sys.executable, "-m", "tests.bench.shard_process", str(state_dir)]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()


async def serve(state_dir: Path) -> None:
    """Print the address and serve until the parent is gone."""
    from services.shard_server import ShardServer

    async with ShardServer(ShardConfig(shard_id="shard-0", state_dir=state_dir)) as server:
        sys.stdout.write(f"{server.address}\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(serve(Path(sys.argv[1])))
