"""The controller as a process of the cluster: it drives shards that live in Ray."""

import asyncio
import logging
from collections.abc import Callable

import ray

from deploy import child
from deploy.cluster_access import access_rules
from deploy.consul import listed, placement_store
from deploy.settings import ClusterSettings
from services import chassis, cluster_servicer
from services.bundle_catalogue import BundleCatalogue
from services.consul_registration import ServiceName
from services.controller_driver import ControllerDriver, DriverConfig
from services.placement_store import PlacementStore
from services.shard_actor import NAMESPACE
from services.shard_config import ShardConfig
from services.shard_host import RayShardHost
from shards.cluster_state import ControllerSettings
from shards.errors import Unavailable
from shards.planner import Limits

_GRACE_S = 0.5
"""Routers' watches never end by themselves; waiting for them is of no use."""


async def serve(settings: ClusterSettings, announce: Callable[[str], None]) -> None:
    """Control the cluster until cancelled; the shards live on."""
    async with (
        placement_store(settings) as store,
        _driver(settings, store) as driver,
        chassis.serve(
            f"{settings.host}:{settings.controller_port}",
            register=[cluster_servicer.register(driver)],
            service_names=[cluster_servicer.SERVICE_NAME],
            options=chassis.ChassisOptions(grace_s=_GRACE_S),
            access=access_rules(settings),
        ) as server,
        listed(settings, ServiceName.CONTROLLER, server.address),
    ):
        announce(server.address)
        await asyncio.Event().wait()


def _driver(settings: ClusterSettings, store: PlacementStore) -> ControllerDriver:
    return ControllerDriver(
        DriverConfig(shard_ids=settings.shard_ids, settings=_controller_settings(settings)),
        store,
        RayShardHost(_shard_configs(settings), num_gpus=_gpus_per_shard(settings)),
        BundleCatalogue(settings.folders.models_dir),
    )


def _controller_settings(settings: ClusterSettings) -> ControllerSettings:
    return ControllerSettings(
        limits=Limits(min_replicas=settings.replicas, max_replicas=settings.replicas),
        shard_capacity_bytes=settings.shard_capacity_bytes,
    )


def _shard_configs(settings: ClusterSettings) -> dict[str, ShardConfig]:
    state_dir = settings.folders.state_dir.absolute()
    return {
        shard_id: ShardConfig(shard_id=shard_id, state_dir=state_dir, device=settings.device)
        for shard_id in settings.shard_ids
    }


def _gpus_per_shard(settings: ClusterSettings) -> float:
    """Return the share of a GPU that each shard gets: all GPUs, divided evenly, at most one each."""
    if not settings.device.startswith("cuda"):
        return 0.0
    gpus = float(ray.cluster_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]
    if not gpus:
        raise Unavailable(f"device {settings.device} was asked for, but Ray finds no GPU")
    return min(1.0, gpus / settings.shards)


def main() -> None:
    """Join the supervisor's Ray and serve."""
    settings = child.enter()
    ray.init(
        address=settings.ray_address,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.WARNING,
        configure_logging=False,
    )
    child.run(settings, serve)


if __name__ == "__main__":
    main()
