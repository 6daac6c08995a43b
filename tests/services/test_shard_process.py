"""A shard's warm process: whoever serves is replaced at once, with port and models, when it dies or hangs."""

import asyncio
import contextlib
import json
import os
import select
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.settings import PROJECT_ROOT
from services.shard_config import ShardConfig
from services.shard_process import Vitals, command, cpu_ticks
from shards.replica import ReplicaState
from tests.services.shard_client import Models, connect

_START_S = 90.0
_WHOLE_S = 10.0


class Warm:
    """A warm process under test."""

    def __init__(self, config: ShardConfig) -> None:
        self.process = subprocess.Popen(
            command(config), cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL
        )

    def life(self, within_s: float = _START_S) -> tuple[str, int]:
        """Return the address and the process of the next life."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], within_s)
        assert readable, "no life"
        told = json.loads(os.read(self.process.stdout.fileno(), 4096).splitlines()[0])
        return told["address"], told["pid"]


@contextmanager
def warm(config: ShardConfig) -> Iterator[Warm]:
    started = Warm(config)
    try:
        yield started
    finally:
        started.process.kill()
        started.process.wait()
        assert started.process.stdout is not None
        started.process.stdout.close()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_shard_that_dies_or_hangs_is_whole_again_within_seconds(
    models: Models, tmp_path: Path, number: signal.Signals
) -> None:
    held = dict.fromkeys(models.release.models(), ReplicaState.READY)

    async def load(address: str) -> None:
        async with connect(address) as client:
            for model in held:
                await client.load(model, models.path(model))

    async def whole(address: str) -> None:
        async with connect(address) as client:
            await client.wait_for(held, timeout_s=_START_S)
            await client.retrieve(models.retrieval())

    with warm(ShardConfig(shard_id="shard-1", state_dir=tmp_path)) as shard:
        address, pid = shard.life()
        asyncio.run(load(address))
        hit_s = time.monotonic()
        os.kill(pid, number)
        again, successor = shard.life(_WHOLE_S)
        assert (again, successor != pid) == (address, True)
        asyncio.run(whole(address))
        assert time.monotonic() - hit_s < 3 * _WHOLE_S
        shard.process.terminate()
        assert shard.process.wait(_WHOLE_S) == 0
        assert not alive(successor)


def test_whoever_serves_dies_with_the_warm_process(tmp_path: Path) -> None:
    with warm(ShardConfig(shard_id="shard-1", state_dir=tmp_path)) as shard:
        _, pid = shard.life()
        os.kill(pid, signal.SIGSTOP)
        shard.process.kill()
        shard.process.wait()
        late_s = time.monotonic() + _WHOLE_S
        while alive(pid):
            assert time.monotonic() < late_s


def test_imports_give_way_to_whoever_serves(tmp_path: Path) -> None:
    own = os.getpriority(os.PRIO_PROCESS, 0)
    with warm(ShardConfig(shard_id="shard-1", state_dir=tmp_path)) as shard:
        late_s = time.monotonic() + _START_S
        while max(priorities(shard.process.pid)) <= own:
            assert time.monotonic() < late_s
        _, pid = shard.life()
        assert priorities(pid)[0] == own


def test_a_shard_that_cannot_serve_says_so(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "shard-1.json").mkdir()
    with warm(ShardConfig(shard_id="shard-1", state_dir=tmp_path)) as shard:
        assert shard.process.wait(_START_S) == 1


def test_silence_is_a_hang_only_without_any_work() -> None:
    vitals = Vitals()
    assert not any(vitals.hangs(beaten=False, ticks=look) for look in range(1, 50))
    assert not any(vitals.hangs(beaten=True, ticks=49) for _ in range(50))
    looks = [vitals.hangs(beaten=False, ticks=49) for _ in range(6)]
    assert looks == [False] * 5 + [True]


def test_processor_time_is_told_of_who_lives() -> None:
    assert cpu_ticks(os.getpid()) > 0
    assert cpu_ticks(2**22 + 1) == 0


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


def priorities(pid: int) -> list[int]:
    """Return the niceness of every thread, the first one first."""
    found = []
    for thread in sorted(int(task.name) for task in (Path("/proc") / str(pid) / "task").iterdir()):
        # One that ends meanwhile has none.
        with contextlib.suppress(ProcessLookupError):
            found.append(os.getpriority(os.PRIO_PROCESS, thread))
    return found
