"""One of two replicas is sick: no search fails for it, and it is hardly asked any more."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from router.client import HeadraceClient
from shards.candidates import Candidates
from shards.errors import HeadraceError
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.router.memory_stages import ranked
from tests.router.running_router import placed, running
from tests.router.scripted_shard import Call, ScriptedShard, hang

RELEASE = Release(
    surface="gifts",
    version="r1",
    channels=(ReleaseChannel(name="lexical", model=ModelVersion("words", "1")),),
    retrieval_budget_ms=2_000,
)
SEARCHES, AT_ONCE = 240, 6
TAKES_S = 0.004

Sicken = Callable[[ScriptedShard], None]


async def well(_: Call) -> Candidates:
    await asyncio.sleep(TAKES_S)
    return ranked("a", "b")


def slow(shard: ScriptedShard) -> None:
    async def answer(_: Call) -> Candidates:
        await asyncio.sleep(50 * TAKES_S)
        return ranked("a", "b")

    shard.answers["words@1"] = answer


def failing_by_half(shard: ScriptedShard) -> None:
    turns = itertools.count()

    async def answer(call: Call) -> Candidates:
        if next(turns) % 2:
            raise HeadraceError("a fault of this shard")
        return await well(call)

    shard.answers["words@1"] = answer


def hung(shard: ScriptedShard) -> None:
    shard.answers["words@1"] = hang


def garbled(shard: ScriptedShard) -> None:
    shard.garbled = b"\xff\xfe\x00garbage"


def garbled_to_what_parses(shard: ScriptedShard) -> None:
    shard.garbled = b"\x98\x06\x01"


@pytest.mark.parametrize("sicken", [slow, failing_by_half, hung, garbled, garbled_to_what_parses])
def test_no_search_fails_and_the_sick_shard_is_hardly_asked(sicken: Sicken, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"words@1": well}) as sick,
            ScriptedShard("s2", {"words@1": well}) as other,
        ):
            addresses = {shard.shard_id: shard.address for shard in (sick, other)}
            async with (
                running(placed([RELEASE], {"words@1": addresses}, addresses), tmp_path) as router,
                HeadraceClient(router.address, timeout_s=5.0, max_attempts=1) as client,
            ):

                async def search(times: int) -> None:
                    for _ in range(times):
                        result = await client.search("gifts", "mug")
                        assert result.complete, result.gaps
                        assert [item.item_id for item in result.items] == ["a", "b"]

                async def all_search(times: int) -> None:
                    async with asyncio.TaskGroup() as group:
                        for _ in range(AT_ONCE):
                            group.create_task(search(times // AT_ONCE))

                await all_search(SEARCHES // 4)
                sicken(sick)
                sick.calls.clear()
                await all_search(SEARCHES)
                assert 1 <= len(sick.calls) <= SEARCHES / 4

    asyncio.run(main())


def test_a_shard_that_recovers_is_asked_again(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"words@1": well}) as sick,
            ScriptedShard("s2", {"words@1": well}) as other,
        ):
            addresses = {shard.shard_id: shard.address for shard in (sick, other)}
            async with (
                running(placed([RELEASE], {"words@1": addresses}, addresses), tmp_path) as router,
                HeadraceClient(router.address, timeout_s=5.0, max_attempts=1) as client,
            ):
                garbled(sick)
                for _ in range(40):
                    assert (await client.search("gifts", "mug")).complete
                sick.garbled = None
                sick.calls.clear()
                async with asyncio.timeout(20):
                    while len(sick.calls) < 10:
                        assert (await client.search("gifts", "mug")).complete

    asyncio.run(main())
