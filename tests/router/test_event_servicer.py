"""Events through a real router: what is refused, and what the next search sees."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from protos.headrace.v1 import event_service_pb2_grpc
from router.client import Event, HeadraceClient, RecordError, RecordResult
from services.redis_settings import RedisSettings
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.router.bad_recordings import RECORDINGS, request, told
from tests.router.memory_stages import ranked
from tests.router.running_router import placed, running
from tests.router.scripted_shard import ScriptedShard
from tests.router.test_bad_requests import problem_with
from tests.services.redis_server import RedisServer

RELEASE = Release(
    surface="gifts",
    version="r1",
    channels=(ReleaseChannel(name="lexical", model=ModelVersion("words", "1")),),
    retrieval_budget_ms=5000,
)


@asynccontextmanager
async def served(
    folder: Path, users: Path | RedisSettings | None = None, **others: Any
) -> AsyncIterator[tuple[HeadraceClient, ScriptedShard, str]]:
    async with ScriptedShard("s1", {"words@1": ranked("a")}) as shard:
        placement = placed([RELEASE], {"words@1": ["s1"]}, {"s1": shard.address})
        async with (
            running(placement, folder, users=users, **others) as router,
            HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client,
        ):
            yield client, shard, router.address


async def seen(client: HeadraceClient, shard: ScriptedShard, user_id: str = "u1") -> tuple[str, ...]:
    """Search, and return the items in the history that reached the shard."""
    assert (await client.search("gifts", "mug", user_id=user_id)).complete
    return shard.calls[-1].context.user.history.item_ids


@pytest.fixture(params=["memory", "lmdb", "redis"])
def users(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param != "redis":
        yield tmp_path / "users" if request.param == "lmdb" else None
        return
    with RedisServer(tmp_path / "redis") as server:
        yield server.settings()


def test_the_very_next_search_sees_what_its_user_did(users: Any, tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path, users) as (client, shard, _):
            assert await seen(client, shard) == ()
            for number in range(5):
                event = Event(user_id="u1", item_id=f"i{number}", action="click")
                assert await client.record_events([event]) == RecordResult(recorded=1, duplicates=0)
                assert await seen(client, shard) == tuple(f"i{n}" for n in range(number + 1))
            assert await client.record_events([event]) == RecordResult(recorded=0, duplicates=1)
            assert await seen(client, shard) == ("i0", "i1", "i2", "i3", "i4")
            assert await seen(client, shard, "u2") == ()

    asyncio.run(main())


def test_an_event_from_a_clock_that_is_ahead_is_seen_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with served(tmp_path) as (client, shard, _):
            ahead_ms = time.time_ns() // 1_000_000 + 300_000
            await client.record_events(
                [Event(user_id="u1", item_id="i1", action="click", timestamp_ms=ahead_ms)]
            )
            assert await seen(client, shard) == ("i1",)

    asyncio.run(main())


def test_every_bad_recording_gets_its_status_and_fields_and_records_nothing(tmp_path: Path) -> None:
    async def main() -> dict[str, str]:
        async with served(tmp_path) as (client, shard, address), grpc.aio.insecure_channel(address) as line:
            problems = {case.name: await problem_with(line, case) for case in RECORDINGS}
            assert await seen(client, shard) == ()
            # A thousand at once are well.
            stub = event_service_pb2_grpc.EventServiceStub(line)
            many = request(
                told(event_id=f"e{n}", item_id=f"i{n}", timestamp=Timestamp(seconds=1_000 + n))
                for n in range(1_000)
            )
            assert (await stub.RecordEvents(many, timeout=20)).recorded == 1_000
            assert (await seen(client, shard))[-1] == "i999"
        return problems

    problems = asyncio.run(main())
    assert {name: problem for name, problem in problems.items() if problem} == {}


def test_a_router_that_is_busy_recording_refuses_more(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        async with served(tmp_path, server.settings(rest_s=0.0), max_recordings=1) as (client, _, address):
            await client.record_events([Event(user_id="u1", item_id="i1", action="click")])
            server.hang()
            first = asyncio.create_task(
                client.record_events([Event(user_id="u1", item_id="i2", action="click")], timeout_s=20.0)
            )
            await asyncio.sleep(0.2)  # It has a connection, which the other has yet to make.
            try:
                async with HeadraceClient(address, timeout_s=5.0, max_attempts=1) as other:
                    error = await refusal(other, lambda code: code is grpc.StatusCode.RESOURCE_EXHAUSTED)
                assert error.reason == "OVERLOADED"
                assert error.retry_after_s is not None
            finally:
                server.wake()
            assert (await first).recorded == 1

    with RedisServer(tmp_path / "redis") as server:
        asyncio.run(main(server))


async def refusal(client: HeadraceClient, wanted: Callable[[grpc.StatusCode], bool]) -> RecordError:
    """Record until it is refused in the wanted way."""
    async with asyncio.timeout(20):
        while True:
            try:
                await client.record_events([Event(user_id="u1", item_id="i", action="click")], timeout_s=0.5)
            except RecordError as error:
                if wanted(error.code):
                    return error


def test_without_their_store_users_are_strangers_and_events_refused(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        async with served(tmp_path, server.settings()) as (client, shard, _):
            await client.record_events([Event(user_id="u1", item_id="i1", action="click")])
            server.kill()
            for _ in range(3):
                result = await client.search("gifts", "mug", user_id="u1")
                assert [item.item_id for item in result.items] == ["a"]
                assert shard.calls[-1].context.user.history.item_ids == ()
                (gap,) = result.gaps
                assert (gap.stage, gap.reason) == ("unspecified", "unavailable")
                assert "features and history" in gap.detail
            assert (await client.search("gifts", "mug")).complete
            error = await refusal(client, lambda _: True)
            assert error.code is grpc.StatusCode.UNAVAILABLE
            server.start()
            async with asyncio.timeout(20):
                while not (await client.search("gifts", "mug", user_id="u1")).complete:
                    pass
            assert await seen(client, shard) == ("i1",)

    with RedisServer(tmp_path / "redis") as server:
        asyncio.run(main(server))


def test_a_silent_store_costs_a_search_part_of_its_time(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        async with served(tmp_path, server.settings(rest_s=30.0)) as (client, shard, _):
            await client.record_events([Event(user_id="u1", item_id="i1", action="click")])
            server.hang()
            try:
                result = await client.search("gifts", "mug", user_id="u1", timeout_s=5.0)
                assert [gap.reason for gap in result.gaps] == ["deadline"]
                assert len(result.items) == 1
                # The next ones do not even wait.
                began_s = time.monotonic()
                for _ in range(10):
                    result = await client.search("gifts", "mug", user_id="u1", timeout_s=5.0)
                    assert [gap.reason for gap in result.gaps] == ["unavailable"]
                assert time.monotonic() - began_s < 10 * 0.25
                error = await refusal(client, lambda _: True)
                assert error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
                assert len(shard.calls) == 11
            finally:
                server.wake()

    with RedisServer(tmp_path / "redis") as server:
        asyncio.run(main(server))


def test_the_client_sends_again_what_a_store_that_was_away_refused(tmp_path: Path) -> None:
    async def main(server: RedisServer) -> None:
        async with (
            served(tmp_path, server.settings()) as (other, _, address),
            HeadraceClient(address, timeout_s=30.0, max_attempts=1_000) as client,
        ):
            event = Event(user_id="u1", item_id="i1", action="click")
            recording = asyncio.create_task(client.record_events([event]))
            await refusal(other, lambda code: code is grpc.StatusCode.UNAVAILABLE)
            server.start()
            assert await recording == RecordResult(recorded=1, duplicates=0)

    server = RedisServer(tmp_path / "redis")
    try:
        asyncio.run(main(server))
    finally:
        server.kill()


def test_events_that_make_no_sense_to_the_client_are_named(tmp_path: Path) -> None:
    async def main() -> RecordError:
        async with served(tmp_path) as (client, _, _):
            with pytest.raises(RecordError) as caught:
                await client.record_events([Event(user_id="", item_id="i", action="click")])
            return caught.value

    error = asyncio.run(main())
    assert [violation.field for violation in error.violations] == ["events[0].user_id"]
