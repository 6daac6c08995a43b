import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from services import chassis
from services.consul_client import ConsulClient
from services.consul_membership import watch_members
from services.consul_registration import Registration, ServiceName, registered
from services.flap_damping import DampingRules
from shards.errors import Unavailable
from tests.services.consul_agent import ConsulAgent

RULES = DampingRules(linger_ms=300)
SERVICE = "headrace.v1.RetrievalService"


def registration(service: ServiceName, name: str, server: chassis.Server) -> Registration:
    return Registration(
        service=service,
        id=name,
        address=server.address,
        health_service=SERVICE,
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
        async for members in watch_members(client, service, random.Random(1), rules):
            async with self._news:
                self.told.append(members)
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
            ConsulClient(consul_agent.settings("members")) as client,
            healthy() as one,
            healthy() as two,
            watching(client, service) as members,
            registered(client, registration(service, "one", one), random.Random(1)),
        ):
            await members.become({"one": one.address})
            async with registered(client, registration(service, "two", two), random.Random(2)):
                await members.become({"one": one.address, "two": two.address})
                await one.set_serving(SERVICE, False)
                await members.become({"two": two.address})
                await one.set_serving(SERVICE, True)
                await members.become({"one": one.address, "two": two.address})
            await members.become({"one": one.address})

    asyncio.run(main())


def test_a_process_that_comes_back_elsewhere_is_found_there(consul_agent: ConsulAgent) -> None:
    service = ServiceName.CONTROLLER

    async def main() -> None:
        async with (
            ConsulClient(consul_agent.settings("moves")) as client,
            healthy() as old,
            healthy() as new,
            watching(client, service) as members,
            AsyncExitStack() as lives,
        ):
            first = registered(client, registration(service, "it", old), random.Random(1))
            await lives.enter_async_context(first)
            await members.become({"it": old.address})
            # Registering over the first life is what a process restarted after a crash does.
            second = registered(client, registration(service, "it", new), random.Random(1))
            await lives.enter_async_context(second)
            await members.become({"it": new.address})

    asyncio.run(main())


def test_members_outlast_an_agent_that_forgets_them(tmp_path: Path) -> None:
    service = ServiceName.ROUTER

    async def main(agent: ConsulAgent) -> None:
        async with (
            ConsulClient(agent.settings("outlast")) as client,
            healthy() as one,
            healthy() as two,
            watching(client, service, replace(RULES, linger_ms=10_000)) as members,
            registered(client, registration(service, "one", one), random.Random(1)),
        ):
            await members.become({"one": one.address})
            await asyncio.to_thread(agent.restart)
            async with registered(client, registration(service, "two", two), random.Random(2)):
                await members.become({"one": one.address, "two": two.address})
            assert {} not in members.told[1:]

    with ConsulAgent(tmp_path) as agent:
        asyncio.run(main(agent))


def test_consul_missing_stops_nobody_from_serving(consul_agent: ConsulAgent) -> None:
    async def main() -> None:
        settings = replace(consul_agent.settings("absent"), address="127.0.0.1:1")
        async with (
            ConsulClient(settings) as client,
            healthy() as server,
            registered(client, registration(ServiceName.SHARD, "x", server), random.Random(1)),
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
