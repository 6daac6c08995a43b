"""The router as a process of the cluster. Imports neither torch, faiss nor ray."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from deploy import child
from deploy.cluster_access import access_rules, own_token, shard_token
from deploy.consul import Member, listed
from deploy.serving_rules import serving_rules, told
from deploy.settings import (
    ClusterSettings,
    consul_settings,
    process_certificates,
    trusted_keys,
    user_store_settings,
)
from deploy.telemetry import process_telemetry
from router.router_config import RouterConfig
from router.router_server import Router
from services import telemetry_settings
from services.consul_registration import ServiceName
from services.shard_access import ROUTER
from services.tls import Party


async def serve(settings: ClusterSettings, announce: Callable[[str], None]) -> None:
    """Serve searches until cancelled; a supervisor's controller is at `settings.controller_port`."""
    folders = settings.folders
    supervisors = f"{settings.host}:{settings.controller_port}"
    config = RouterConfig(
        host=settings.host,
        port=settings.router_port,
        controller=supervisors if settings.supervised else settings.controller_address,
        consul=consul_settings(settings),
        cache_path=folders.router_cache_path,
        user_store=user_store_settings(settings),
        bundle_root=Path(settings.models_path) if settings.models_path else folders.models_dir,
        reuse_port=True,
        access=access_rules(settings),
        controller_token=own_token(settings, ROUTER),
        shard_token=shard_token(settings),
        trusted_keys=trusted_keys(settings),
        tls=process_certificates(settings, Party.ROUTER),
        mutual_tls=settings.router_mutual_tls,
        reflection=settings.reflection,
        **told(serving_rules(settings).router),
        outcomes_dir=folders.outcomes_dir,
        telemetry=process_telemetry(settings, telemetry_settings.ROUTER),
    )
    async with (
        Router(config) as router,
        listed(settings, lambda: [Member(ServiceName.ROUTER, router.address, router.address)]),
    ):
        announce(router.address)
        await asyncio.Event().wait()


if __name__ == "__main__":
    child.run(child.enter(), serve)
