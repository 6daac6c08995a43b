import asyncio
import subprocess
import sys
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from router.client import HeadraceClient, SearchError
from router.placement_cache import write_cache
from router.router_config import RouterConfig
from router.router_server import SERVICES, Router
from services.codec import placement_to_proto
from services.user_store_settings import UserStoreSettings
from shards.candidates import Candidates
from shards.errors import Unavailable
from shards.placement import Placement
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.router.memory_stages import ranked
from tests.router.running_router import placed, running
from tests.router.scripted_controller import ScriptedController
from tests.router.scripted_shard import Call, ScriptedShard

RELEASE = Release(
    surface="gifts",
    version="r1",
    channels=(ReleaseChannel(name="lexical", model=ModelVersion("words", "1")),),
    retrieval_budget_ms=5000,
)


def placed_on(*shards: ScriptedShard, generation: int = 1) -> Placement:
    holders = {"words@1": [shard.shard_id for shard in shards]}
    placement = placed([RELEASE], holders, {shard.shard_id: shard.address for shard in shards})
    return replace(placement, generation=generation)


async def health_of(channel: grpc.aio.Channel, service: str = "") -> Any:
    stub = health_pb2_grpc.HealthStub(channel)
    return (await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=5)).status


def test_health_is_serving_once_a_release_is_known() -> None:
    async def main() -> None:
        serving, not_serving = (
            health_pb2.HealthCheckResponse.SERVING,
            health_pb2.HealthCheckResponse.NOT_SERVING,
        )
        async with (
            ScriptedShard("s1", {"words@1": ranked("a")}) as shard,
            ScriptedController(placement_to_proto(Placement(generation=1))) as controller,
            Router(RouterConfig(controller=controller.address, grace_s=0.0)) as router,
            grpc.aio.insecure_channel(router.address) as channel,
            HeadraceClient(router.address, max_attempts=1) as client,
        ):
            assert await health_of(channel) == not_serving
            with pytest.raises(SearchError):
                await client.search("gifts", "mug")
            await controller.publish(placement_to_proto(placed_on(shard, generation=2)))
            table = await router.ready()
            assert table.generation == 2
            for service in ("", *SERVICES):
                assert await health_of(channel, service) == serving
            assert (await client.search("gifts", "mug")).items[0].item_id == "a"
            await controller.publish(placement_to_proto(Placement(generation=3)))
            await health_turns(channel, not_serving)

    asyncio.run(main())


async def health_turns(channel: grpc.aio.Channel, status: Any) -> None:
    watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
    async for response in watch:
        if response.status == status:
            return
    pytest.fail("health did not turn")


def test_before_any_placement_searches_are_told_to_come_back() -> None:
    async def main() -> None:
        async with (
            ScriptedController() as controller,
            Router(RouterConfig(controller=controller.address, grace_s=0.0)) as router,
            HeadraceClient(router.address, max_attempts=1) as client,
        ):
            with pytest.raises(SearchError, match="no placement is known yet") as caught:
                await client.search("gifts", "mug")
            assert caught.value.code is grpc.StatusCode.UNAVAILABLE

    asyncio.run(main())


def test_a_new_placement_moves_the_traffic(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            ScriptedShard("s1", {"words@1": ranked("a")}) as one,
            ScriptedShard("s2", {"words@1": ranked("b")}) as two,
            ScriptedController(placement_to_proto(placed_on(one))) as controller,
            Router(
                RouterConfig(controller=controller.address, cache_path=tmp_path / "p.json", grace_s=0.0)
            ) as router,
            HeadraceClient(router.address, timeout_s=10) as client,
        ):
            await router.ready()
            assert (await client.search("gifts", "mug")).items[0].item_id == "a"
            await controller.publish(placement_to_proto(placed_on(two, generation=2)))
            async with asyncio.timeout(10):
                while (result := await client.search("gifts", "mug")).generation == 1:
                    assert result.items[0].item_id == "a"
            assert result.items[0].item_id == "b"

    asyncio.run(main())


def test_a_router_restarts_without_its_controller(tmp_path: Path) -> None:
    async def main() -> None:
        async with ScriptedShard("s1", {"words@1": ranked("a")}) as shard:
            async with running(placed_on(shard), tmp_path):
                pass
            async with ScriptedController() as gone:
                pass
            cache_path = tmp_path / "router-placement.json"
            async with (
                Router(RouterConfig(controller=gone.address, cache_path=cache_path, grace_s=0.0)) as router,
                HeadraceClient(router.address, timeout_s=5.0) as client,
            ):
                await router.ready()
                assert (await client.search("gifts", "mug")).items[0].item_id == "a"

    asyncio.run(main())


def test_what_is_in_flight_is_finished_before_the_router_stops(tmp_path: Path) -> None:
    async def main() -> None:
        arrived, answered = asyncio.Event(), asyncio.Event()

        async def answer_late(_: Call) -> Candidates:
            arrived.set()
            await answered.wait()
            return ranked("a")

        async with ScriptedShard("s1", {"words@1": answer_late}) as shard, AsyncExitStack() as stack:
            cache_path = tmp_path / "placement.json"
            await write_cache(cache_path, placed_on(shard))
            config = RouterConfig(cache_path=cache_path, default_deadline_s=5.0)
            router = await stack.enter_async_context(Router(config))
            async with (
                HeadraceClient(router.address, timeout_s=5.0) as client,
                grpc.aio.insecure_channel(router.address) as channel,
            ):
                await router.ready()
                health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
                assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
                search = asyncio.create_task(client.search("gifts", "mug"))
                await arrived.wait()
                stop = asyncio.create_task(stack.aclose())
                assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
                answered.set()
                assert (await search).items[0].item_id == "a"
                health.cancel()
                await stop

    asyncio.run(main())


def test_every_service_is_found_by_reflection(tmp_path: Path) -> None:
    async def main() -> set[str]:
        async with (
            running(Placement(generation=1, releases={"gifts": RELEASE}), tmp_path) as router,
            grpc.aio.insecure_channel(router.address) as channel,
        ):
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
            async for response in stub.ServerReflectionInfo(requests, timeout=5):
                return {service.name for service in response.list_services_response.service}
        return set()

    listed = asyncio.run(main())
    assert {*SERVICES, "grpc.health.v1.Health", "grpc.channelz.v1.Channelz"} <= listed


def test_an_error_of_the_block_leaves_as_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(KeyError):
            async with running(Placement(generation=1, releases={"gifts": RELEASE}), tmp_path):
                raise KeyError

    asyncio.run(main())


def test_a_taken_port_and_an_impossible_user_store_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with running(Placement(generation=1, releases={"gifts": RELEASE}), tmp_path) as router:
            with pytest.raises(Unavailable, match="cannot listen"):
                async with Router(RouterConfig(port=router.port, cache_path=tmp_path / "p.json")):
                    pytest.fail("two routers share a port")
            nowhere = UserStoreSettings(place=tmp_path / "no" / "where")
            with pytest.raises(Unavailable, match="user store"):
                async with Router(RouterConfig(cache_path=tmp_path / "p", user_store=nowhere)):
                    pytest.fail("a router without its users started")

    asyncio.run(main())


@pytest.mark.parametrize(
    "settings",
    [
        {"default_deadline_s": 0.0},
        {"default_deadline_s": 20.0},
        {"max_in_flight": 0},
        {"max_recordings": 0},
        {"user_timeout_s": 0.0},
        {"max_message_bytes": 0},
        {"grace_s": -1.0},
        {"controller": ""},
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"deadline|must be positive|needs a controller"):
        RouterConfig(**{"controller": "h:1", **settings})


def test_a_deadline_is_the_callers_within_the_routers() -> None:
    config = RouterConfig(controller="h:1", default_deadline_s=1.0, max_deadline_s=3.0)
    for asked_s, given_s in ((None, 1.0), (0.5, 0.5), (99.0, 3.0)):
        assert given_s - 0.2 < config.deadline_of(asked_s).remaining_s() <= given_s


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("router.router_server", {"torch", "faiss", "ray", "tantivy", "training", "deploy"}),
        ("router.client", {"numpy", "pyarrow", "lmdb", "torch", "faiss", "ray", "shards"}),
    ],
)
def test_a_module_loads_nothing_heavy(module: str, forbidden: set[str]) -> None:
    program = f"import {module}, sys; print(*(name.partition('.')[0] for name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not forbidden & set(loaded.stdout.split())
