"""A shard as a plain asyncio server: it holds bundles and serves their stages on one port, without Ray."""

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

import faiss
import torch

from services import chassis, shard_access, shard_servicer, stages
from services.access import internal_only
from services.holdings import Holdings
from services.live_watch import LiveWatch
from services.metrics_port import metrics_port
from services.on_demand import OnDemandLoads
from services.queue_delay import QueueSettings
from services.shard_config import ShardConfig
from services.shard_metrics import shard_instruments
from services.shard_servicer import Shard
from services.stage_observer import StageObserver
from services.stage_runner import StageRunner
from services.telemetry_settings import SHARD, TARGETS, ProcessTelemetry
from services.tls import Certificates, Party, TlsFiles
from services.tracing import running_tracing
from services.worker_pool import WorkerPool
from shards.errors import Unavailable
from shards.eviction import EvictionLimits
from shards.garbage import set_aside_what_stays
from shards.leak_guard import LeakGuard, LeakLimits
from shards.load_attempts import AttemptLimits
from shards.memory_use import MemoryUse
from shards.process_memory import anonymous_bytes
from shards.program_process import program_process
from shards.residency import Residency

log = logging.getLogger(__name__)


class ShardServer:
    """Serves from `async with` on: at once, and each bundle of its record as soon as that is READY."""

    def __init__(self, config: ShardConfig) -> None:
        self.address = ""
        """HOST:PORT for callers; empty until it has started."""
        self._config = config
        self._exits = AsyncExitStack()

    async def __aenter__(self) -> Self:
        self.address = await self._exits.enter_async_context(_serving(self._config))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exits.aclose()


@asynccontextmanager
async def _serving(config: ShardConfig) -> AsyncIterator[str]:
    torch.set_num_threads(config.threads)
    faiss.omp_set_num_threads(config.threads)
    set_aside_what_stays()
    residency = Residency(
        device=config.device, limits=_limits(config), attempts=_attempts(config), trusted=config.trusted_keys
    )
    holdings = Holdings(residency, config.record_path)
    holdings.restore_on_demand()
    telemetry = ProcessTelemetry(
        role=SHARD,
        name=config.shard_id,
        settings=config.telemetry,
        targets_dir=config.state_dir / TARGETS,
        advertise_host=config.advertise_host or config.host,
    )
    async with (
        running_tracing(telemetry, roots=False) as tracing,
        _computing(config) as pool,
        _loading() as loader,
    ):
        on_demand = OnDemandLoads(holdings.demand, loader)
        observer = StageObserver(config.shard_id, tracing, per_model=config.telemetry.metrics.per_model)
        watch = LiveWatch(config.quality, residency, lambda: pool.in_flight > 0)
        shard = Shard(
            config=config,
            incarnation=uuid.uuid4().hex,
            holdings=holdings,
            pool=pool,
            runner=StageRunner(residency, pool, on_demand, observer, watch),
            on_demand=on_demand,
            leak_guard=LeakGuard(_leak_limits(config)),
        )
        async with AsyncExitStack() as exits:
            exits.enter_context(watch)
            server = await _listen(exits, config, shard, loader)
            holdings.keep_port(server.port)
            exits.enter_context(
                metrics_port(telemetry, shard_instruments(shard, observer, residency.history))
            )
            for held in holdings.recorded:
                if not held.on_demand:
                    loader.submit(holdings.restore, held)
            loader.submit(_settle, residency)
            yield f"{config.advertise_host or config.host}:{server.port}"


def _settle(residency: Residency) -> None:
    """Have loads give way to requests from now on, and programs read by another process.

    That takes seconds to start. A shard that comes back restores its bundles sooner without, and has hardly
    a caller yet whom loads could disturb.
    """
    programs = program_process()
    programs.start()
    residency.give_way(programs.read)


def _limits(config: ShardConfig) -> EvictionLimits:
    return EvictionLimits(
        capacity=MemoryUse(host_bytes=config.memory_bytes, gpu_bytes=config.gpu_memory_bytes),
        min_idle_s=config.min_idle_s,
        min_residence_s=config.min_residence_s,
    )


def _computing(config: ShardConfig) -> WorkerPool:
    queue = QueueSettings(
        standing_s=config.queue_standing_s, target_s=config.queue_target_s, share=config.queue_share
    )
    # Searches that wait for a GPU must let others join them.
    inline_s = config.inline_s if config.device == "cpu" else 0.0
    return WorkerPool(workers=config.workers, max_queue=config.max_queue, queue=queue, inline_s=inline_s)


def _leak_limits(config: ShardConfig) -> LeakLimits:
    return LeakLimits(
        limit_bytes=config.leak_limit_bytes,
        baseline_bytes=anonymous_bytes(),
        patience_s=config.leak_patience_s,
    )


def _attempts(config: ShardConfig) -> AttemptLimits:
    return AttemptLimits(
        attempts=config.load_attempts,
        backoff_s=config.load_backoff_s,
        max_backoff_s=max(AttemptLimits().max_backoff_s, config.load_backoff_s),
    )


@asynccontextmanager
async def _loading() -> AsyncIterator[ThreadPoolExecutor]:
    """Give the one thread on which bundles come and go, so that no two changes race."""
    loader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="loader")
    try:
        yield loader
    finally:
        await asyncio.to_thread(loader.shutdown, wait=True, cancel_futures=True)


async def _listen(
    exits: AsyncExitStack, config: ShardConfig, shard: Shard, loader: ThreadPoolExecutor
) -> chassis.Server:
    """Serve on the configured port, or on the one before, where routers still look, or on any."""

    files = TlsFiles.in_folder(Path(config.tls_path), Party.SHARD.word) if config.tls_path else None
    certificates = Certificates(files) if files else None
    access = shard_access.followed(config)

    def serve(port: int) -> AbstractAsyncContextManager[chassis.Server]:
        return chassis.serve(
            f"{config.host}:{port}",
            register=[stages.register(shard.runner), shard_servicer.register(shard, loader)],
            service_names=[*stages.SERVICE_NAMES, shard_servicer.SERVICE_NAME],
            options=chassis.ChassisOptions(
                grace_s=config.grace_s,
                max_message_bytes=config.max_message_bytes,
                reflection=config.reflection,
            ),
            access=access,
            roles=internal_only,
            tls=certificates.server_credentials(mutual=True) if certificates else None,
        )

    if not config.port and shard.holdings.port:
        try:
            return await exits.enter_async_context(serve(shard.holdings.port))
        except Unavailable:
            log.warning("port %d of the life before is taken", shard.holdings.port)
    return await exits.enter_async_context(serve(config.port))
