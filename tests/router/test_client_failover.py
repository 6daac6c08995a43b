"""The Python client before several routers, which die, hang and refuse."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import grpc
import pytest

from protos.headrace.v1 import event_service_pb2, event_service_pb2_grpc, search_service_pb2_grpc
from router.client import Event, HeadraceClient, SearchError
from services import chassis
from shards.errors import Overloaded, Unavailable
from tests.router.test_client import PROMPT, ScriptedRouter

GONE = "127.0.0.1:1"
"""Nobody listens on it, and whoever tries is told at once."""


class Recorder(event_service_pb2_grpc.EventServiceServicer):
    """Records every event, and is gone before it says so as often as it is told."""

    def __init__(self, *, breaks: int) -> None:
        self.event_ids: list[str] = []
        self.breaks = breaks

    async def RecordEvents(  # noqa: N802
        self, request: event_service_pb2.RecordEventsRequest, _: grpc.aio.ServicerContext[Any, Any]
    ) -> event_service_pb2.RecordEventsResponse:
        known = {event.event_id for event in request.events} & set(self.event_ids)
        self.event_ids += [event.event_id for event in request.events if event.event_id not in known]
        if self.breaks:
            self.breaks -= 1
            raise Unavailable("gone in the middle of it")
        return event_service_pb2.RecordEventsResponse(
            recorded=len(request.events) - len(known), duplicates=len(known)
        )


@asynccontextmanager
async def serving(routers: Sequence[ScriptedRouter]) -> AsyncIterator[list[str]]:
    def serve(router: ScriptedRouter) -> AbstractAsyncContextManager[chassis.Server]:
        return chassis.serve(
            "127.0.0.1:0",
            register=[lambda s: search_service_pb2_grpc.add_SearchServiceServicer_to_server(router, s)],
            service_names=["headrace.v1.SearchService"],
            options=chassis.ChassisOptions(grace_s=0.0),
        )

    async with AsyncExitStack() as stack:
        yield [(await stack.enter_async_context(serve(router))).address for router in routers]


def client_of(addresses: Sequence[str], seed: int = 1, **options: Any) -> HeadraceClient:
    return HeadraceClient(
        addresses, **{"timeout_s": 5.0, "backoff": PROMPT, **options}, rng=random.Random(seed)
    )


def test_whoever_is_asked_first_another_stands_in_at_once_and_is_stayed_with() -> None:
    async def main() -> None:
        router = ScriptedRouter()
        async with serving([router]) as (address,):
            for seed in range(6):
                async with client_of([GONE, address, GONE], seed, max_attempts=3) as client:
                    for _ in range(3):
                        assert (await client.search("gifts", "mug")).request_id == "q-1"
        assert len(router.requests) == 18

    asyncio.run(main())


def test_clients_begin_with_different_routers() -> None:
    async def main() -> None:
        routers = [ScriptedRouter(), ScriptedRouter()]
        async with serving(routers) as addresses:
            for seed in range(12):
                async with client_of(addresses, seed) as client:
                    await client.search("gifts", "mug")
        assert min(len(router.requests) for router in routers) >= 2

    asyncio.run(main())


def test_a_router_that_hangs_leaves_time_for_another() -> None:
    async def main() -> None:
        routers = [ScriptedRouter(hangs=True), ScriptedRouter()]
        async with serving(routers) as addresses:
            for seed in range(4):
                async with client_of(addresses, seed, attempt_timeout_s=0.2) as client:
                    assert (await client.search("gifts", "mug")).request_id == "q-1"
            async with client_of(addresses[:1], attempt_timeout_s=0.2, max_attempts=2) as client:
                with pytest.raises(SearchError) as caught:
                    await client.search("gifts", "mug")
        assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert routers[0].requests

    asyncio.run(main())


def test_what_an_overloaded_router_asks_for_is_kept_before_others_are_asked() -> None:
    async def main() -> None:
        routers = [ScriptedRouter([Overloaded("busy", retry_after_s=0.3)]) for _ in range(2)]
        async with serving(routers) as addresses, client_of(addresses) as client:
            began_s = time.monotonic()
            await client.search("gifts", "mug")
            assert time.monotonic() - began_s >= 0.6
        assert sorted(len(router.requests) for router in routers) == [1, 2]

    asyncio.run(main())


def test_events_that_are_sent_again_count_once() -> None:
    async def main() -> None:
        recorder = Recorder(breaks=1)
        async with (
            chassis.serve(
                "127.0.0.1:0",
                register=[lambda s: event_service_pb2_grpc.add_EventServiceServicer_to_server(recorder, s)],
                service_names=["headrace.v1.EventService"],
            ) as server,
            client_of([server.address]) as client,
        ):
            events = [Event(user_id="u", item_id=item, action="click") for item in "ab"]
            result = await client.record_events(events)
        assert (result.recorded, result.duplicates) == (0, 2)
        assert recorder.event_ids == [event.event_id for event in events]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("routers", "options", "problem"),
    [
        ([], {}, "address"),
        (["a:1", ""], {}, "address"),
        ("", {}, "address"),
        (["a:1"], {"max_attempts": 0}, "max_attempts"),
        (["a:1"], {"attempt_timeout_s": 0.0}, "attempt_timeout_s"),
    ],
)
def test_senseless_settings_are_named(routers: list[str], options: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        HeadraceClient(routers, **options)
