"""Registering routers, shards and controllers with Consul, which then checks their health by gRPC."""

import asyncio
import enum
import logging
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from services.consul_client import ConsulClient
from shards.errors import HeadraceError

log = logging.getLogger(__name__)

_IDLE_S = 1.0
"""How often to see whether somebody wants to be registered."""


class ServiceName(enum.StrEnum):
    """What Consul calls the processes of a cluster."""

    ROUTER = "headrace-router"
    SHARD = "headrace-shard"
    CONTROLLER = "headrace-controller"
    """The one that leads and serves."""
    CANDIDATE = "headrace-candidate"
    """Controllers that stand for election, the leader included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One process, and how its health is checked.

    The agent calls `grpc.health.v1.Health/Check` at `address`, for `health_service` or the whole server. A
    process that fails for `forget_after_s`, at least a minute, is no longer listed at all.
    """

    service: ServiceName
    id: str
    """Of the process, unique on its agent: a shard id."""
    address: str
    """HOST:PORT, as others reach it."""
    health_service: str = ""
    tags: tuple[str, ...] = ()
    meta: Mapping[str, str] = field(default_factory=dict)
    check_every_s: float = 2.0
    check_timeout_s: float = 1.0
    forget_after_s: float = 300.0
    look_every_s: float = 2.0
    """How often to see that the agent still knows us: one that was replaced does not."""

    def __post_init__(self) -> None:
        host, _, port = self.address.rpartition(":")
        if not self.id or not host or not port.isdecimal():
            raise ValueError(f"{self.id!r} at {self.address!r}: an id and HOST:PORT are needed")
        if min(self.check_every_s, self.check_timeout_s, self.look_every_s) <= 0 or self.forget_after_s < 60:
            raise ValueError("times of a check must be above 0, and forget_after_s at least 60")

    @property
    def service_id(self) -> str:
        """Return the id in Consul, where processes of all kinds share one name space."""
        return f"{self.service}-{self.id}"

    def check(self) -> dict[str, Any]:
        """Return the health check as Consul's API takes it (1.0.5 and later)."""
        return {
            "name": f"{self.service} {self.id}",
            "grpc": f"{self.address}/{self.health_service}" if self.health_service else self.address,
            "interval": f"{self.check_every_s:g}s",
            "timeout": f"{self.check_timeout_s:g}s",
            "deregistercriticalserviceafter": f"{self.forget_after_s:g}s",
        }


@asynccontextmanager
async def registered(
    client: ConsulClient, wanted: Callable[[], Sequence[Registration]], rng: random.Random
) -> AsyncIterator[None]:
    """Have those registered who are wanted at the time, while the block runs; also after an agent forgot.

    Consul's absence stops nobody. At the end all of them are taken off the list.
    """
    kept: dict[str, Registration] = {}
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(_keep(client, wanted, kept, rng))
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait([keeping])
            with suppress(HeadraceError):
                for service_id in kept:
                    await _deregister(client, service_id)


async def _keep(
    client: ConsulClient,
    wanted: Callable[[], Sequence[Registration]],
    kept: dict[str, Registration],
    rng: random.Random,
) -> None:
    while True:
        now = {registration.service_id: registration for registration in wanted()}
        try:
            for service_id in kept.keys() - now.keys():
                await _deregister(client, service_id)
                del kept[service_id]
            for service_id, registration in now.items():
                if not await _is_known(client, registration):
                    await _register(client, registration)
                    log.info("registered %s at %s", service_id, registration.address)
                kept[service_id] = registration
        except HeadraceError as error:
            log.info("%s are not registered: %s", ", ".join(now), error)
        # Half of the time is chance, so that a restarted agent does not hear of all at once.
        look_every_s = min((registration.look_every_s for registration in now.values()), default=_IDLE_S)
        await asyncio.sleep(look_every_s * rng.uniform(0.5, 1.0))


async def _deregister(client: ConsulClient, service_id: str) -> None:
    await client.ask(lambda api: api.agent.service.deregister(service_id))


async def _is_known(client: ConsulClient, registration: Registration) -> bool:
    """Return whether the agent has this registration; one from an earlier life may have another address."""
    known = await client.ask(lambda api: api.agent.services(filter_expr=f'ID == "{registration.service_id}"'))
    host, _, port = registration.address.rpartition(":")
    return any(service["Address"] == host and service["Port"] == int(port) for service in known.values())


async def _register(client: ConsulClient, registration: Registration) -> None:
    host, _, port = registration.address.rpartition(":")
    await client.ask(
        lambda api: api.agent.service.register(
            str(registration.service),
            service_id=registration.service_id,
            address=host,
            port=int(port),
            tags=list(registration.tags),
            meta=dict(registration.meta),
            check=registration.check(),
            replace_existing_checks=True,
        )
    )
