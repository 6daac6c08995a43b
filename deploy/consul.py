"""What a cluster's processes do with Consul, where `headrace up --consul` names an agent."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from deploy.settings import ClusterSettings, consul_settings
from services.consul_client import ConsulClient
from services.consul_placement_store import ConsulPlacementStore
from services.consul_registration import Registration, ServiceName, registered
from services.mirrored_placement_store import MirroredPlacementStore
from services.placement_store import FilePlacementStore, PlacementStore


@asynccontextmanager
async def placement_store(settings: ClusterSettings) -> AsyncIterator[PlacementStore]:
    """Lend the store of the placement: Consul mirrored in the workspace's snapshot, or the snapshot alone."""
    snapshot = FilePlacementStore(settings.folders.placement_path)
    consul = consul_settings(settings)
    if consul is None:
        yield snapshot
        return
    async with ConsulClient(consul) as client:
        yield MirroredPlacementStore(ConsulPlacementStore(client), snapshot)


@asynccontextmanager
async def listed(settings: ClusterSettings, service: ServiceName, address: str) -> AsyncIterator[None]:
    """Be registered with Consul, with a health check, while the block runs; nothing without Consul.

    Routers of one cluster share an address, and so an entry.
    """
    consul = consul_settings(settings)
    if consul is None:
        yield
        return
    registration = Registration(service=service, id=address, address=address)
    async with ConsulClient(consul) as client, registered(client, registration, random.Random()):
        yield
