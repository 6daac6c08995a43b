import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services import chassis
from services.consul_client import ConsulClient
from services.consul_membership import Member, members, watch_members
from services.consul_registration import Registration, ServiceName, registered
from services.flap_damping import DampingRules
from shards.errors import Unavailable
from tests.services.consul_agent import ConsulAgent

RULES = DampingRules(linger_ms=300)
SERVICE = "headrace.v1.RetrievalService"
CLUSTER = "shop/members"


def registration(service: ServiceName, name: str, server: chassis.Server, cluster: str) -> Registration:
    return Registration(
        service=service,
        id=name,
        address=server.address,
        health_service=SERVICE,
        meta={"cluster": cluster, "member": name},
        check_every_s=0.2,
        look_every_s=0.2,
    )


@asynccontextmanager
async def healthy() -> AsyncIterator[chassis.Server]:
    """A real server with nothing but its health."""
    options = chassis.ChassisOptions(grace_s=0.0)
    async with chassis.serve("127.0.0.1:0", register=[], service_names=[SERVICE], options=options) as server:
        yield server


class Members:
    """Who is there, as a watch tells it."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, str]] = []
        self._news = asyncio.Condition()

    async def become(self, wanted: Mapping[str, str]) -> None:
        async with asyncio.timeout(15), self._news:
            await self._news.wait_for(lambda: bool(self.told) and self.told[-1] == wanted)

    async def run(self, client: ConsulClient, service: ServiceName, rules: DampingRules) -> None:
        async for seen in watch_members(client, service, random.Random(1), rules):
            async with self._news:
                self.told.append(seen)
                self._news.notify_all()


@asynccontextmanager
async def watching(
    client: ConsulClient, service: ServiceName, rules: DampingRules = RULES
) -> AsyncIterator[Members]:
    members = Members()
    task = asyncio.create_task(members.run(client, service, rules))
    yield members
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


def test_members_come_when_healthy_and_go_when_not(consul_agent: ConsulAgent) -> None:
    service = ServiceName.SHARD

    async def main() -> None:
        async with (
            ConsulClient(consul_agent.settings(CLUSTER)) as client,
            healthy() as one,
            healthy() as two,
            watching(client, service) as told,
            registered(client, lambda: [registration(service, "one", one, CLUSTER)], random.Random(1)),
        ):
            await told.become({"one": one.address})
            async with registered(
                client, lambda: [registration(service, "two", two, CLUSTER)], random.Random(2)
            ):
                await told.become({"one": one.address, "two": two.address})
                await one.set_serving(SERVICE, False)
                await told.become({"two": two.address})
                await one.set_serving(SERVICE, True)
                await told.become({"one": one.address, "two": two.address})
            await told.become({"one": one.address})

    asyncio.run(main())


def test_members_of_another_cluster_are_not_ours(consul_agent: ConsulAgent) -> None:
    service = ServiceName.ROUTER

    async def main() -> None:
        async with (
            ConsulClient(consul_agent.settings(CLUSTER)) as client,
            healthy() as ours,
            healthy() as others,
            registered(
                client,
                lambda: [
                    registration(service, "ours", ours, CLUSTER),
                    registration(service, "others", others, "another"),
                ],
                random.Random(1),
            ),
            watching(client, service) as told,
        ):
            await told.become({"ours": ours.address})
            assert await members(client, service) == [Member("ours", ours.address, passing=True)]
            await others.set_serving(SERVICE, False)
            await ours.set_serving(SERVICE, False)
            await told.become({})
            assert await members(client, service) == [Member("ours", ours.address, passing=False)]

    asyncio.run(main())


def test_those_no_longer_wanted_are_taken_off_the_list(consul_agent: ConsulAgent) -> None:
    service = ServiceName.SHARD

    async def main() -> None:
        async with ConsulClient(consul_agent.settings(CLUSTER)) as client, healthy() as server:
            wanted = [registration(service, name, server, CLUSTER) for name in ("one", "two")]
            async with (
                registered(client, lambda: wanted, random.Random(1)),
                watching(client, service) as told,
            ):
                await told.become({"one": server.address, "two": server.address})
                wanted.pop()
                await told.become({"one": server.address})
            assert await members(client, service) == []

    asyncio.run(main())


def test_a_process_that_comes_back_elsewhere_is_found_there(consul_agent: ConsulAgent) -> None:
    service = ServiceName.CONTROLLER

    async def main() -> None:
        async with (
            ConsulClient(consul_agent.settings(CLUSTER)) as client,
            healthy() as old,
            healthy() as new,
            watching(client, service) as told,
            AsyncExitStack() as lives,
        ):
            first = registered(client, lambda: [registration(service, "it", old, CLUSTER)], random.Random(1))
            await lives.enter_async_context(first)
            await told.become({"it": old.address})
            # Registering over the first life is what a process restarted after a crash does.
            second = registered(client, lambda: [registration(service, "it", new, CLUSTER)], random.Random(1))
            await lives.enter_async_context(second)
            await told.become({"it": new.address})

    asyncio.run(main())


def test_members_outlast_an_agent_that_forgets_them(tmp_path: Path) -> None:
    service = ServiceName.ROUTER

    async def main(agent: ConsulAgent) -> None:
        async with (
            ConsulClient(agent.settings(CLUSTER)) as client,
            healthy() as one,
            healthy() as two,
            watching(client, service, replace(RULES, linger_ms=10_000)) as told,
            registered(client, lambda: [registration(service, "one", one, CLUSTER)], random.Random(1)),
        ):
            await told.become({"one": one.address})
            await asyncio.to_thread(agent.restart)
            async with registered(
                client, lambda: [registration(service, "two", two, CLUSTER)], random.Random(2)
            ):
                await told.become({"one": one.address, "two": two.address})
            assert {} not in told.told[1:]

    with ConsulAgent(tmp_path) as agent:
        asyncio.run(main(agent))


def test_consul_missing_stops_nobody_from_serving(consul_agent: ConsulAgent) -> None:
    async def main() -> None:
        settings = replace(consul_agent.settings(CLUSTER), address="127.0.0.1:1")
        async with (
            ConsulClient(settings) as client,
            healthy() as server,
            registered(
                client, lambda: [registration(ServiceName.SHARD, "x", server, CLUSTER)], random.Random(1)
            ),
        ):
            with pytest.raises(Unavailable, match="does not answer"):
                await client.ask(lambda api: api.agent.services())

    asyncio.run(main())


@pytest.mark.parametrize(
    "wrong", [{"id": ""}, {"address": "h"}, {"check_every_s": 0}, {"forget_after_s": 59}]
)
def test_a_registration_that_consul_would_refuse_is_refused_here(wrong: dict[str, object]) -> None:
    fields: dict[str, object] = {"service": ServiceName.SHARD, "id": "a", "address": "h:1"}
    with pytest.raises(ValueError, match=r"HOST:PORT|forget_after_s"):
        Registration(**fields | wrong)  # type: ignore[arg-type]
