import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services.consul_client import ConsulClient
from services.consul_placement_store import ConsulPlacementStore
from services.mirrored_placement_store import MirroredPlacementStore
from services.placement_store import (
    Committed,
    Conflict,
    FilePlacementStore,
    MemoryPlacementStore,
    PlacementStore,
)
from shards.changes import DeployRelease, DrainShard
from shards.errors import CorruptRecord
from shards.intent import Intent, Operation, OperationState
from shards.placement import Assignment, Placement
from shards.release import GateRules, ModelVersion, Release, ReleaseChannel, ReleaseScorer, Stage, Traffic
from tests.services.consul_agent import ConsulAgent

Opened = AbstractAsyncContextManager[PlacementStore]
Open = Callable[[], Opened]

MODEL = ModelVersion("towers", "20101101-1")
RELEASE = Release(
    surface="web",
    version="7",
    gate=GateRules(allow=("äpfel",), min_query_chars=2),
    channels=(ReleaseChannel(name="embedding", model=MODEL, weight=0.7, gated=True),),
    ranker=ReleaseScorer(model=ModelVersion("ranker", "3"), candidates=100),
    task_exponents={"purchase": 0.3},
    as_of_ms=1_288_569_600_123,
)
INTENT = Intent(
    shard_ids=("shard-0", "shard-1"),
    drained=("shard-1",),
    frozen=True,
    operations=(
        Operation(operation_id="a", change=DrainShard(shard_id="shard-1"), steps_total=3, start_ms=1),
        Operation(
            operation_id="b",
            change=DeployRelease(release=RELEASE),
            state=OperationState.FAILED,
            detail="goldens differ",
            start_ms=2,
            end_ms=3,
        ),
    ),
)
FIRST = Placement(
    generation=1,
    endpoints={"shard-0": "127.0.0.1:4000"},
    assignments={MODEL: Assignment(model=MODEL, stage=Stage.RETRIEVAL, shard_ids=("shard-0",))},
    releases={"web": RELEASE},
    traffic={"web": Traffic(canary=replace(RELEASE, version="8"), canary_percent=12.5, previous=RELEASE)},
    aliases={"gifts": "web@canary"},
    intent=INTENT,
)
SECOND = replace(FIRST, generation=2, endpoints={})


def file(folder: Path) -> FilePlacementStore:
    return FilePlacementStore(folder / "state" / "placement.json")


@asynccontextmanager
async def memory(_: pytest.FixtureRequest, __: Path) -> AsyncIterator[PlacementStore]:
    yield MemoryPlacementStore()


@asynccontextmanager
async def snapshot(_: pytest.FixtureRequest, folder: Path) -> AsyncIterator[PlacementStore]:
    yield file(folder)


@asynccontextmanager
async def consul(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[PlacementStore]:
    agent: ConsulAgent = request.getfixturevalue("consul_agent")
    async with ConsulClient(agent.settings(f"contract{folder}")) as client:
        yield ConsulPlacementStore(client)


@asynccontextmanager
async def mirrored(request: pytest.FixtureRequest, folder: Path) -> AsyncIterator[PlacementStore]:
    async with consul(request, folder) as primary:
        yield MirroredPlacementStore(primary, file(folder))


@pytest.fixture(params=[memory, snapshot, consul, mirrored])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if request.param in (consul, mirrored):
        request.getfixturevalue("consul_agent")
    return lambda: request.param(request, tmp_path)


def test_an_unused_store_holds_generation_zero(opened: Open) -> None:
    async def main() -> None:
        async with opened() as store:
            assert await store.read() == Placement()

    asyncio.run(main())


def test_what_is_committed_is_read_unchanged(opened: Open) -> None:
    async def main() -> None:
        async with opened() as store:
            assert await store.commit(0, FIRST) == Committed(FIRST)
            assert await store.read() == FIRST
            assert await store.commit(1, SECOND) == Committed(SECOND)
            assert await store.read() == SECOND

    asyncio.run(main())


def test_a_commit_on_another_generation_is_a_conflict_and_changes_nothing(opened: Open) -> None:
    async def main() -> None:
        async with opened() as store:
            await store.commit(0, FIRST)
            assert await store.commit(0, replace(SECOND, generation=5)) == Conflict(FIRST)
            assert await store.commit(7, replace(SECOND, generation=8)) == Conflict(FIRST)
            assert await store.read() == FIRST

    asyncio.run(main())


def test_of_many_commits_on_one_generation_one_wins(opened: Open) -> None:
    async def main() -> None:
        wanted = [replace(FIRST, endpoints={"shard": str(n)}) for n in range(16)]
        async with opened() as store:
            outcomes = await asyncio.gather(*(store.commit(0, placement) for placement in wanted))
            (winner,) = [outcome.placement for outcome in outcomes if isinstance(outcome, Committed)]
            assert await store.read() == winner
        assert [o.current for o in outcomes if isinstance(o, Conflict)] == [winner] * 15

    asyncio.run(main())


def test_generations_only_rise(opened: Open) -> None:
    async def main() -> None:
        async with opened() as store:
            with pytest.raises(ValueError, match="generation 1 is not above 1"):
                await store.commit(1, FIRST)

    asyncio.run(main())


def test_the_file_outlives_its_store_and_can_be_read_by_people(tmp_path: Path) -> None:
    asyncio.run(file(tmp_path).commit(0, FIRST))
    assert asyncio.run(file(tmp_path).read()) == FIRST
    document = json.loads((tmp_path / "state" / "placement.json").read_text())
    assert document["releases"][0]["gate"]["allow"] == ["äpfel"]


@pytest.mark.parametrize("damage", [b"", b'{"generation": "2"', b'{"assignments": [{}]}', b"\xff\xfe"])
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "state" / "placement.json"
    asyncio.run(file(tmp_path).commit(0, FIRST))
    path.write_bytes(damage)
    with pytest.raises(CorruptRecord, match=r"placement snapshot: record .*placement\.json"):
        asyncio.run(file(tmp_path).read())
    with pytest.raises(CorruptRecord):
        asyncio.run(file(tmp_path).commit(0, FIRST))
    assert path.read_bytes() == damage


FULL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from services.placement_store import FilePlacementStore
from tests.services.test_placement_store import SECOND

resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
asyncio.run(FilePlacementStore(Path(sys.argv[1])).commit(1, SECOND))
"""


def test_a_disk_that_takes_no_more_is_named_and_leaves_the_old_placement(tmp_path: Path) -> None:
    """With a limit of the kernel's in place of a full disk, in a process of its own, which it is for."""
    path = tmp_path / "state" / "placement.json"
    asyncio.run(file(tmp_path).commit(0, FIRST))
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert re.search(rf"OSError: .*File too large: '{re.escape(str(path))}'", done.stderr)
    assert asyncio.run(file(tmp_path).read()) == FIRST
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["placement.json", "placement.lock"]
