"""The controller as a process of the cluster: it drives shards that live in Ray."""

import asyncio
import logging
import socket
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import ray

from deploy import child
from deploy.cluster_access import access_rules, shard_rules, shard_token
from deploy.consul import Member, listed, placement_store, standing
from deploy.leader_seat import seated
from deploy.planning_rules import controller_settings
from deploy.ports import claim_port
from deploy.ray_node import check_reachable
from deploy.serving_rules import serving_rules, told
from deploy.settings import ClusterSettings, consul_settings, process_certificates, trusted_keys
from deploy.telemetry import process_telemetry, telemetry
from services import chassis, cluster_servicer
from services.audit_log import AuditLog
from services.bearer import bearer
from services.bundle_catalogue import BundleCatalogue
from services.consul_leadership import Leadership, run_terms
from services.consul_registration import ServiceName
from services.controller_driver import ControllerDriver, DriverConfig
from services.controller_metrics import ControllerMetrics
from services.dialling import Dialling
from services.metrics_port import metrics_port
from services.placement_store import PlacementStore
from services.shard_actor import NAMESPACE
from services.shard_config import ShardConfig
from services.shard_host import RayShardHost
from services.shard_resources import ShardResources
from services.telemetry_settings import CONTROLLER, Telemetry
from services.tls import Certificates, Party
from shards.errors import Unavailable

log = logging.getLogger(__name__)

_GRACE_S = 0.5
"""Routers' watches never end by themselves; waiting for them is of no use."""


async def serve(settings: ClusterSettings, announce: Callable[[str], None]) -> None:
    """Control the cluster until cancelled; the shards live on.

    With Consul it stands for election, which it announces as well: it controls and listens while it leads.
    """
    metrics = ControllerMetrics()
    with metrics_port(process_telemetry(settings, CONTROLLER), metrics.instruments()):
        await _stand(settings, metrics, announce)


async def _stand(
    settings: ClusterSettings, metrics: ControllerMetrics, announce: Callable[[str], None]
) -> None:
    consul = consul_settings(settings)
    async with placement_store(settings) as store:
        if consul is None:
            await _lead(settings, store, lambda: True, metrics, announce)
            return
        # A snapshot that cannot be read is told now, and not by a leader that takes office.
        await store.read()
        port = settings.controller_port or claim_port(settings.host, 0)
        settings = replace(settings, controller_port=port)
        address = f"{settings.host}:{port}"
        async with standing(consul, address) as leadership:
            announce(address)
            await run_terms(leadership, partial(_term, settings, store, leadership, metrics))


async def _term(
    settings: ClusterSettings, store: PlacementStore, leadership: Leadership, metrics: ControllerMetrics
) -> None:
    async with seated(settings.folders.leader_seat_path(socket.gethostname())):
        await _lead(
            settings, store, lambda: leadership.leading, metrics, lambda address: log.info("at %s", address)
        )


async def _lead(
    settings: ClusterSettings,
    store: PlacementStore,
    leads: Callable[[], bool],
    metrics: ControllerMetrics,
    announce: Callable[[str], None],
) -> None:
    """Control the cluster and serve its operators and routers until cancelled."""
    files = process_certificates(settings, Party.CONTROLLER)
    certificates = Certificates(files) if files else None
    async with (
        _driver(settings, store, leads, certificates) as driver,
        chassis.serve(
            f"{settings.host}:{settings.controller_port}",
            register=[cluster_servicer.register(driver)],
            service_names=[cluster_servicer.SERVICE_NAME],
            options=chassis.ChassisOptions(grace_s=_GRACE_S, reflection=settings.reflection),
            access=access_rules(settings),
            audit=AuditLog(settings.folders.audit_path),
            tls=certificates.server_credentials(mutual=True) if certificates else None,
        ) as server,
        listed(settings, lambda: _members(driver, server.address)),
    ):
        with metrics.showing(driver):
            announce(server.address)
            await asyncio.Event().wait()


def _members(driver: ControllerDriver, address: str) -> list[Member]:
    """Return whom Consul shall list: the leader, and its shards, which need no rights in Consul then."""
    shards = [
        Member(ServiceName.SHARD, shard_id, view.address)
        for shard_id, view in driver.state.shards.items()
        if view.address
    ]
    return [Member(ServiceName.CONTROLLER, address, address), *shards]


def _driver(
    settings: ClusterSettings,
    store: PlacementStore,
    leads: Callable[[], bool],
    certificates: Certificates | None,
) -> ControllerDriver:
    return ControllerDriver(
        DriverConfig(shard_ids=settings.shard_ids, settings=controller_settings(settings)),
        store,
        RayShardHost(partial(_shard_config, settings, telemetry(settings)), _shard_resources(settings)),
        BundleCatalogue(settings.folders.models_dir, trusted_keys(settings)),
        leads,
        Dialling(certificates=certificates, metadata=bearer(shard_token(settings))),
    )


def _shard_config(settings: ClusterSettings, seen: Telemetry, shard_id: str) -> ShardConfig:
    return ShardConfig(
        shard_id=shard_id,
        state_dir=settings.folders.state_dir.absolute(),
        host=settings.shard_host,
        device=settings.device,
        tls_path=settings.tls_path,
        access=shard_rules(settings),
        access_path=settings.access_path,
        trusted_keys=trusted_keys(settings),
        reflection=settings.reflection,
        memory_bytes=settings.shard_capacity_bytes,
        telemetry=seen,
        **told(serving_rules(settings).shard),
    )


def _shard_resources(settings: ClusterSettings) -> ShardResources:
    return ShardResources(
        num_cpus=settings.shard_cpus, num_gpus=_gpus_per_shard(settings), labels=settings.shard_labels
    )


def _gpus_per_shard(settings: ClusterSettings) -> float:
    """Return each shard's share of a GPU: as set, or all GPUs divided evenly, at most one each."""
    if not settings.device.startswith("cuda"):
        return 0.0
    if settings.gpu_fraction:
        return settings.gpu_fraction
    gpus = float(ray.cluster_resources().get("GPU", 0.0))  # type: ignore[no-untyped-call]
    if not gpus:
        raise Unavailable(f"device {settings.device} was asked for, but Ray finds no GPU")
    return min(1.0, gpus / settings.shards)


def main() -> None:
    """Join the cluster's Ray and serve."""
    settings = child.enter()
    join_ray(settings)
    child.run(settings, serve)


def join_ray(settings: ClusterSettings) -> None:
    """Become a driver of the Ray at `settings.ray_address`, which has a node on this host.

    Raises `Unavailable` when there is none.
    """
    if ":" in settings.ray_address:
        check_reachable(settings.ray_address)
    try:
        _init_ray(settings.ray_address)
    except (OSError, RuntimeError, ValueError) as error:
        raise Unavailable(f"cannot join Ray at {settings.ray_address}: {error}") from error


def _init_ray(address: str) -> None:
    ray.init(
        address=address,
        namespace=NAMESPACE,
        log_to_driver=False,
        logging_level=logging.WARNING,
        configure_logging=False,
    )


if __name__ == "__main__":
    main()
