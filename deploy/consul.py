"""What a cluster's processes do with Consul, where `headrace up --consul` names an agent."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from deploy.settings import ClusterSettings, consul_settings
from services.consul_client import ConsulClient
from services.consul_leadership import Leadership, candidacy
from services.consul_placement_store import ConsulPlacementStore
from services.consul_registration import Registration, ServiceName, registered
from services.consul_session import SessionSettings
from services.consul_settings import ConsulSettings
from services.mirrored_placement_store import MirroredPlacementStore
from services.placement_store import FilePlacementStore, PlacementStore


@dataclass(frozen=True, slots=True)
class Member:
    """A process of the cluster, for Consul's list; routers share an address, and so an entry."""

    service: ServiceName
    name: str
    address: str
    """HOST:PORT."""


@asynccontextmanager
async def placement_store(settings: ClusterSettings) -> AsyncIterator[PlacementStore]:
    """Lend the store of the placement: Consul mirrored in the workspace's snapshot, or the snapshot alone.

    The mirror follows Consul all the time, so that whoever leads next knows as much as the leader did.
    """
    snapshot = FilePlacementStore(settings.folders.placement_path)
    consul = consul_settings(settings)
    if consul is None:
        yield snapshot
        return
    async with AsyncExitStack() as exits:
        client = await exits.enter_async_context(ConsulClient(consul))
        primary = ConsulPlacementStore(client)
        store = MirroredPlacementStore(primary, snapshot)
        group = await exits.enter_async_context(asyncio.TaskGroup())
        exits.callback(group.create_task(store.follow(primary.watch(0, random.Random()))).cancel)
        yield store


@asynccontextmanager
async def standing(consul: ConsulSettings, address: str) -> AsyncIterator[Leadership]:
    """Stand for election as a controller that will serve at HOST:PORT, which the lock then shows."""
    session = SessionSettings(
        name=f"controller of {address}, process {os.getpid()} on {socket.gethostname()}"
    )
    async with candidacy(consul, session, random.Random(), value=address) as leadership:
        yield leadership


@asynccontextmanager
async def listed(settings: ClusterSettings, members: Callable[[], Sequence[Member]]) -> AsyncIterator[None]:
    """Have the members registered with Consul, with health checks, while the block runs.

    They may change all the time. Nothing happens without Consul.
    """
    consul = consul_settings(settings)
    if consul is None:
        yield
        return

    def wanted() -> list[Registration]:
        return [_registration(consul.prefix, member) for member in members()]

    async with ConsulClient(consul) as client, registered(client, wanted, random.Random()):
        yield


def _registration(prefix: str, member: Member) -> Registration:
    """Return the entry; clusters that share an agent have names of their own there."""
    return Registration(
        service=member.service,
        id=f"{prefix.replace('/', '-')}-{member.name}",
        address=member.address,
        meta={"cluster": prefix, "member": member.name},
    )
