import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from deploy.kept_process import KeptProcess, ProcessSpec
from deploy.processes import processes
from deploy.settings import ClusterSettings
from shards.errors import Unavailable
from tests.services.running_controller import eventually


def kept(root: Path, behaviour: str) -> KeptProcess:
    async def settings() -> ClusterSettings:
        return ClusterSettings(workspace=str(root), device=behaviour)

    spec = ProcessSpec(
        name="child", module="tests.deploy.child_process", log_path=root / "child.log", settings=settings
    )
    return KeptProcess(spec, asyncio.Lock(), on_change=lambda: None)


@asynccontextmanager
async def keeping(process: KeptProcess) -> AsyncIterator[None]:
    task = asyncio.create_task(process.keep())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def test_a_process_serves_starts_again_when_killed_and_stops_gracefully(tmp_path: Path) -> None:
    async def main() -> None:
        process = kept(tmp_path, "serve")
        async with keeping(process):
            first = await asyncio.wait_for(process.served(), 30)
            assert process.pid is not None
            assert first == f"127.0.0.1:{process.pid}"
            os.kill(process.pid, signal.SIGKILL)

            async def another() -> bool:
                return await process.served() != first

            await eventually(another, within_s=30)
            pid = process.pid
            assert not (tmp_path / "stopped").exists()
        assert process.pid is None
        assert (tmp_path / "stopped").exists()
        assert pid not in [p.pid for p in processes()]

    asyncio.run(main())


def test_a_process_that_leaves_is_started_again(tmp_path: Path) -> None:
    async def main() -> None:
        process = kept(tmp_path, "leave")
        pids = set()

        async def thrice() -> bool:
            pids.add(process.pid)
            return len(pids - {None}) >= 3

        async with keeping(process):
            await eventually(thrice, within_s=60)

    asyncio.run(main())


@pytest.mark.parametrize(("behaviour", "reason"), [("refuse", "no such luck"), ("crash", "it says nothing")])
def test_a_process_that_never_serves_is_given_up_with_its_reason(
    tmp_path: Path, behaviour: str, reason: str
) -> None:
    process = kept(tmp_path, behaviour)
    with pytest.raises(Unavailable, match=f"child does not start: {reason}"):
        asyncio.run(asyncio.wait_for(process.keep(), 90))


def test_end_makes_a_process_start_again(tmp_path: Path) -> None:
    async def main() -> None:
        process = kept(tmp_path, "serve")
        async with keeping(process):
            first = await process.served()

            async def another() -> bool:
                return await process.served() != first

            process.end()
            await eventually(another, within_s=30)

    asyncio.run(main())
