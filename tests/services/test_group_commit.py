import asyncio
import threading
from collections.abc import Sequence

import pytest

from services.group_commit import GroupCommit
from shards.errors import DeadlineExceeded, Overloaded


class Disk:
    """Doubles numbers, refuses odd ones, and waits whenever it is told to."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.groups: list[list[int]] = []
        self.began = threading.Event()

    def commit(self, numbers: Sequence[int]) -> list[int]:
        self.groups.append(list(numbers))
        self.began.set()
        assert self.free.wait(30)
        if any(number % 2 for number in numbers):
            raise ValueError(f"{numbers} are odd")
        return [2 * number for number in numbers]


def test_what_waits_is_written_together_and_fails_alone() -> None:
    async def main() -> None:
        disk = Disk()
        writer = GroupCommit(disk.commit, name="test", most_together=4)
        first = asyncio.create_task(writer.submit(0, 30))
        await asyncio.to_thread(disk.began.wait)
        rest = [asyncio.create_task(writer.submit(number, 30)) for number in (2, 3, 4, 6, 8)]
        await asyncio.sleep(0)
        disk.free.set()
        assert await first == 0
        results = await asyncio.gather(*rest, return_exceptions=True)
        assert isinstance(results.pop(1), ValueError)
        assert results == [4, 8, 12, 16]
        assert disk.groups == [[0], [2, 3, 4, 6], [2], [3], [4], [6], [8]]
        assert writer.close()

    asyncio.run(main())


def test_who_waited_too_long_is_told_and_forgotten() -> None:
    async def main() -> None:
        disk = Disk()
        writer = GroupCommit(disk.commit, name="test", most_waiting=1)
        first = asyncio.create_task(writer.submit(2, 30))
        await asyncio.to_thread(disk.began.wait)
        with pytest.raises(DeadlineExceeded):
            await writer.submit(4, 0.01)
        with pytest.raises(Overloaded):
            await writer.submit(6, 30)
        assert not writer.close(patience_s=0.01)
        disk.free.set()
        assert await first == 4
        assert writer.close()
        assert disk.groups == [[2]]

    asyncio.run(main())


def test_one_that_nobody_used_closes() -> None:
    assert GroupCommit(Disk().commit, name="test").close()
