"""The router as a process of the cluster. Imports neither torch, faiss nor ray."""

import asyncio
from collections.abc import Callable

from deploy import child
from deploy.cluster_access import ROUTER, access_rules, own_token
from deploy.consul import listed
from deploy.settings import ClusterSettings, consul_settings
from router.router_server import Router, RouterConfig
from services.consul_registration import ServiceName
from services.user_store import LmdbUserStore


async def serve(settings: ClusterSettings, announce: Callable[[str], None]) -> None:
    """Serve searches until cancelled; `settings.controller_port` is where the controller is."""
    folders = settings.folders
    # Made here when nothing was trained yet, so that users trained later are seen by this very process.
    with LmdbUserStore.open(folders.users_path):
        pass
    config = RouterConfig(
        host=settings.host,
        port=settings.router_port,
        controller=f"{settings.host}:{settings.controller_port}",
        consul=consul_settings(settings),
        cache_path=folders.router_cache_path,
        user_store_path=folders.users_path,
        reuse_port=True,
        access=access_rules(settings),
        controller_token=own_token(settings, ROUTER),
    )
    async with Router(config) as router, listed(settings, ServiceName.ROUTER, router.address):
        announce(router.address)
        await asyncio.Event().wait()


if __name__ == "__main__":
    child.run(child.enter(), serve)
