"""A router with rules, before real shards and behind a controller with rules."""

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from router.client import Event, HeadraceClient, RecordError, RecordResult, SearchError
from router.router_config import RouterConfig
from router.router_server import Router
from router.stage_client import PRE_RANK, RANK, RETRIEVE
from services.bearer import bearer
from services.codec import placement_to_proto
from tests.router.bad_requests import items, pre_rank, rank, retrieve
from tests.router.real_shards import Models, real_shards
from tests.router.running_router import running
from tests.router.scripted_controller import ScriptedController
from tests.services.callers import access, showing
from tests.shards.bundles import SURFACE

NO_TOKENS = [None, "", "wrong-token"]
UNKNOWN, DENIED = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED


async def refusal(address: str, token: str | None) -> SearchError:
    async with HeadraceClient(address, token, timeout_s=10.0) as client:
        with pytest.raises(SearchError) as caught:
            await client.search(SURFACE, "red mug")
    assert caught.value.reason == caught.value.code.name
    return caught.value


def test_searches_ask_for_the_role_search(models: Models, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            real_shards(models, tmp_path, ["s1"]) as addresses,
            running(models.placed_on(addresses), tmp_path, access=access) as router,
        ):
            for token in NO_TOKENS:
                assert (await refusal(router.address, token)).code is UNKNOWN
            for role in ("operator", "internal"):
                denied = await refusal(router.address, f"{role}-token")
                assert denied.code is DENIED
                assert denied.message == f"caller {role!r} lacks the role 'search'"
            async with HeadraceClient(router.address, "search-token", timeout_s=10.0) as client:
                result = await client.search(SURFACE, "red mug")
            assert result.complete
            assert result.items

    asyncio.run(main())


def test_events_ask_for_the_role_events(models: Models, tmp_path: Path) -> None:
    event = Event(user_id="u1", item_id="item-001", action="click")

    async def record(address: str, token: str | None) -> RecordResult:
        async with HeadraceClient(address, token, timeout_s=10.0) as client:
            return await client.record_events([event])

    async def main() -> None:
        async with (
            real_shards(models, tmp_path, ["s1"]) as addresses,
            running(models.placed_on(addresses), tmp_path, access=access) as router,
        ):
            refused = [(None, UNKNOWN), ("wrong-token", UNKNOWN)]
            refused += [(f"{role}-token", DENIED) for role in ("search", "operator", "internal")]
            for token, code in refused:
                with pytest.raises(RecordError) as caught:
                    await record(router.address, token)
                assert caught.value.code is code
            assert await record(router.address, "events-token") == RecordResult(recorded=1, duplicates=0)
            assert (await refusal(router.address, "events-token")).code is DENIED

    asyncio.run(main())


def test_stage_proxies_ask_for_the_role_search(models: Models, tmp_path: Path) -> None:
    calls = ((RETRIEVE, retrieve()), (PRE_RANK, pre_rank(items(1))), (RANK, rank(items(1))))

    async def code(channel: grpc.aio.Channel, path: str, payload: bytes, token: str | None) -> Any:
        method: Any = channel.unary_unary(path)
        call = method(payload, timeout=10, metadata=showing(token))
        return await call.code()

    async def main() -> None:
        async with (
            real_shards(models, tmp_path, ["s1"]) as addresses,
            running(models.placed_on(addresses), tmp_path, access=access) as router,
            grpc.aio.insecure_channel(router.address) as channel,
        ):
            for path, request in calls:
                payload = request.SerializeToString()
                assert await code(channel, path, payload, None) is UNKNOWN
                assert await code(channel, path, payload, "wrong-token") is UNKNOWN
                assert await code(channel, path, payload, "operator-token") is DENIED
                assert await code(channel, path, payload, "search-token") is grpc.StatusCode.OK
            health = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=10)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    asyncio.run(main())


def test_without_rules_nobody_is_asked_for_a_token(models: Models, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            real_shards(models, tmp_path, ["s1"]) as addresses,
            running(models.placed_on(addresses), tmp_path) as router,
        ):
            for token in (None, "wrong-token"):
                async with HeadraceClient(router.address, token, timeout_s=10.0) as client:
                    assert (await client.search(SURFACE, "red mug")).items

    asyncio.run(main())


def test_a_router_shows_its_token_to_the_controller(models: Models) -> None:
    async def main() -> None:
        placement = placement_to_proto(models.placed_on({}))
        async with ScriptedController(placement, access=access) as controller:
            config = RouterConfig(
                controller=controller.address, grace_s=0.0, controller_token="internal-token"
            )
            assert "internal-token" not in repr(config)
            async with Router(config) as router, asyncio.timeout(10):
                assert (await router.ready()).generation == placement.generation
            assert controller.known_generations == [0]

    asyncio.run(main())


def test_a_token_is_sent_as_it_is_or_not_at_all() -> None:
    assert bearer(None) == bearer("") == ()
    assert bearer("aZ09-._~+/==") == (("authorization", "Bearer aZ09-._~+/=="),)
    for wrong in ("two words", "line\n", "tökén", "a=b!"):
        with pytest.raises(ValueError, match="a token is made of") as caught:
            HeadraceClient("127.0.0.1:1", wrong)
        assert wrong not in str(caught.value)
