"""A caller at a steady rate in a process of its own, for benchmarks.

`python -m tests.bench.steady_client ADDRESS MODEL VERSION RATE`: for each line on its standard input, a
number of seconds, it asks a retriever for so long and answers with the latencies.
"""

import asyncio
import gc
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from deploy.settings import PROJECT_ROOT
from services import codec
from shards.release import ModelVersion
from shards.search_context import SearchContext
from tests.services.shard_client import NOW_MS, ShardClient, connect


@dataclass(frozen=True, slots=True)
class SteadyClient:
    """The other side of the process."""

    process: "subprocess.Popen[str]"

    async def window(self, seconds: float) -> Sequence[float]:
        """Return the latencies, in seconds, of the calls of so long."""
        return await asyncio.to_thread(self._window, seconds)

    def _window(self, seconds: float) -> Sequence[float]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        latencies: list[float] = json.loads(self.process.stdout.readline())
        return latencies


@contextmanager
def steady_client(address: str, model: ModelVersion, rate: float) -> Iterator[SteadyClient]:
    """Give a client that asks a retriever `rate` times a second when told to."""
    command = [
        sys.executable,
        "-m",
        "tests.bench.steady_client",
        address,
        model.model,
        model.version,
        str(rate),
    ]
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield SteadyClient(process)
        finally:
            process.terminate()


async def _serve(address: str, model: ModelVersion, rate: float) -> None:
    async with connect(address) as client:
        gc.freeze()
        while line := await asyncio.to_thread(sys.stdin.readline):
            latencies = await _window(client, model, rate, float(line))
            sys.stdout.write(json.dumps(latencies) + "\n")
            sys.stdout.flush()


async def _window(client: ShardClient, model: ModelVersion, rate: float, seconds: float) -> list[float]:
    """Ask at the rate, whether the shard keeps up or not."""
    started = time.perf_counter()
    call = codec.Retrieval(model=model, context=SearchContext(query="red mug", now_ms=NOW_MS), k=50)

    async def timed(due: float) -> float:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        # What the caller's own timer adds is not the shard's.
        asked = time.perf_counter()
        await client.retrieve(call)
        return time.perf_counter() - asked

    return list(await asyncio.gather(*(timed(started + k / rate) for k in range(round(seconds * rate)))))


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1], ModelVersion(sys.argv[2], sys.argv[3]), float(sys.argv[4])))
