"""A million items embedded, indexed and deployed by one command, a worker killed: `make bench-catalogue`.

The embedding channel of the recipe `online_retail` is trained for an epoch and served by `headrace up`; then
`headrace catalogue deploy` makes the live release of it one of a million items. The items are the real ones
over and over, each time with another number behind their title and id. When half of the blocks are embedded
one worker gets a SIGKILL. Writes `build/bench/catalogue.json`; needs HEADRACE_DATA_DIR.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from deploy.folders import cache_dir
from deploy.processes import descendants, resident_bytes
from deploy.settings import PROJECT_ROOT
from deploy.training import TrainingOptions, train_release
from deploy.workspace import Workspace
from router.client import HeadraceClient
from shards.release import ModelVersion
from tests.bench.data_dir import data_dir
from tests.bench.result import Check, at_least, at_most, publish
from tests.deploy.running_cluster import headrace, running_cluster
from training.catalogue_blocks import BLOCK_ITEMS
from training.datasets import sources
from training.overrides import with_overrides
from training.recipes.online_retail import ONLINE_RETAIL
from training.trainer import ignore

SURFACE = "online-retail"
_LOOK_EVERY_S = 0.1
_WORKER = "ray::_Worker"

RECIPE = with_overrides(
    replace(ONLINE_RETAIL.embedding_alone(), attributes=("title",)),
    ["two_tower.fit.epochs=1", "two_tower_queries=20000"],
)


@dataclass(slots=True)
class Watched:
    """What was seen of a command while it ran: its processes' memory at each share of blocks embedded."""

    blocks: int
    folder: Path
    pid: int
    memory: list[tuple[int, int]] = field(default_factory=list)
    """Blocks embedded, resident bytes of all processes."""
    peak_bytes: int = 0
    killed: int = 0
    before_kill: dict[Path, int] = field(default_factory=dict)
    unchanged: bool = False

    def look(self) -> None:
        """Note the memory; kill a worker where half is done; see that what was there stays as it is."""
        family = [process for process in descendants(self.pid) if not process.zombie]
        total = resident_bytes(self.pid) + sum(resident_bytes(process.pid) for process in family)
        self.peak_bytes = max(self.peak_bytes, total)
        done = {path: path.stat().st_mtime_ns for path in self.folder.glob("*.npz")}
        if done and (not self.memory or self.memory[-1][0] < self.blocks):
            self.memory.append((len(done), total))
        if len(done) >= self.blocks // 2 and not self.killed:
            self.before_kill = done
            self.killed = next(process.pid for process in family if process.name.startswith(_WORKER))
            os.kill(self.killed, signal.SIGKILL)
        if len(done) == self.blocks:
            self.unchanged = all(done.get(path) == at for path, at in self.before_kill.items())

    def memory_at(self, share: float) -> int:
        """Return the resident bytes when so many of the blocks had just been embedded."""
        return next(total for done, total in self.memory if done >= share * self.blocks)


def write_items(path: Path, real: pa.Table, count: int) -> None:
    """Write so many items, a number of the real ones at a time."""
    schema = pa.schema([("item_id", pa.string()), ("title", pa.string())])
    with pq.ParquetWriter(path, schema) as writer:
        for batch in _copies(real, count):
            writer.write_table(batch.cast(schema))


def _copies(real: pa.Table, count: int) -> Iterator[pa.Table]:
    ids, titles = real.column("item_id").to_pylist(), real.column("title").to_pylist()
    for start in range(0, count, len(ids)):
        copy, size = start // len(ids), min(len(ids), count - start)
        yield pa.table(
            {
                "item_id": ids[:size] if not copy else [f"{item_id}-{copy}" for item_id in ids[:size]],
                "title": titles[:size] if not copy else [f"{title} {copy}" for title in titles[:size]],
            }
        )


def watch(command: list[str], blocks: int, folder: Path, log: Path) -> tuple[Watched, float, int]:
    """Run a command, watching it; returns what was seen, its seconds and its exit status."""
    started = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=output, stderr=output)
        watched, pause = Watched(blocks=blocks, folder=folder, pid=process.pid), threading.Event()
        while process.poll() is None:
            watched.look()
            pause.wait(_LOOK_EVERY_S)
    return watched, time.perf_counter() - started, process.returncode


def measure(workspace: Workspace, data: Path, *, items: int, partitions: int, workers: int) -> dict[str, Any]:
    """Train, serve, embed and deploy; returns the figures."""
    dataset = sources.load("online_retail", cache_dir=cache_dir(), data_dir=data)
    trained = train_release(RECIPE, dataset, workspace, TrainingOptions(), ignore)
    model: ModelVersion = trained.release.channels[0].model
    path = workspace.root / "items.parquet"
    write_items(path, dataset.items, items)
    with running_cluster(workspace, "--shards", "2", "--replicas", "1") as cluster:
        command = headrace("catalogue", "deploy", str(model), str(path), "--surface", SURFACE)
        command += ["--workspace", str(workspace.root), "--partitions", str(partitions)]
        command += ["--workers", str(workers)]
        folder, log = workspace.catalogue_dir / str(model), workspace.root / "catalogue.log"
        watched, seconds, status = watch(command, -(-items // BLOCK_ITEMS), folder, log)
        if status:
            sys.exit(log.read_text())
        release, complete, found = asyncio.run(_asked(cluster.router))
    first, last = watched.memory_at(0.2), watched.memory_at(1.0)
    return {
        "seconds": round(seconds, 1),
        "items_a_second": round(items / seconds),
        "resident_bytes_at_20_percent": first,
        "resident_bytes_at_100_percent": last,
        "growth": last / first,
        "peak_bytes": watched.peak_bytes,
        "workers_killed": int(watched.killed > 0),
        "finished_blocks_kept": watched.unchanged,
        "live": release != trained.release.version and complete,
        "found_new": found,
    }


async def _asked(router: str) -> tuple[str, bool, int]:
    """Return the release that answers, whether it answered in full, and how many items were made up."""
    async with HeadraceClient(router, timeout_s=30.0) as client:
        answer = await client.search(SURFACE, "red retrospot mug", page_size=50)
    return answer.release, answer.complete, sum("-" in item.item_id for item in answer.items)


def main() -> int:
    """Measure and publish; 1 where a figure misses its aim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--partitions", type=int, default=8)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    data = data_dir(parser)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", dir="/tmp") as folder:
        figures = measure(Workspace(Path(folder)), data, **vars(options))
    checks: list[Check] = [
        at_most("memory when all is embedded against a fifth", figures["growth"], 1.1),
        at_least("workers killed half-way", figures["workers_killed"], 1),
        at_least("blocks finished before are untouched", figures["finished_blocks_kept"], 1),
        at_least("the release of all items is live", figures["live"], 1),
        at_least("made-up items on the page", figures["found_new"], 1),
    ]
    publish("catalogue", settings=vars(options), figures=figures, checks=checks)
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
