"""What a cluster's processes do with Consul, where `headrace up --consul` names an agent."""

import asyncio
import os
import random
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from deploy.settings import ClusterSettings, consul_settings
from services.consul_client import ConsulClient
from services.consul_leadership import Leadership, candidacy
from services.consul_placement_store import ConsulPlacementStore
from services.consul_registration import Registration, ServiceName, registered
from services.consul_session import SessionSettings
from services.consul_settings import ConsulSettings
from services.mirrored_placement_store import MirroredPlacementStore
from services.placement_store import FilePlacementStore, PlacementStore


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
async def listed(settings: ClusterSettings, service: ServiceName, address: str) -> AsyncIterator[None]:
    """Be registered with Consul, with a health check, while the block runs; nothing without Consul.

    Routers of one cluster share an address, and so an entry.
    """
    consul = consul_settings(settings)
    if consul is None:
        yield
        return
    meta = {"cluster": settings.consul_prefix, "member": address}
    registration = Registration(service=service, id=address, address=address, meta=meta)
    async with ConsulClient(consul) as client, registered(client, registration, random.Random()):
        yield
