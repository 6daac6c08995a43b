"""A router, a shard and a controller in this process that have met everything there is to count."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from router.client import Event, HeadraceClient
from services.controller_metrics import ControllerMetrics
from services.metrics_port import metrics_port
from services.metrics_targets import metrics_targets
from services.telemetry_settings import CONTROLLER, ROUTER, SHARD, TARGETS, ProcessTelemetry, Telemetry
from shards.live_quality import QualitySettings
from shards.reference import Column, Reference
from shards.release import GateRules
from tests.router.running_router import placed, running
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import running_controller
from tests.services.scraping import Scraped, scrape
from tests.shards import gates
from tests.shards.bundles import RELEASE, SURFACE, build_models
from training.reference_writing import with_reference

GATED = replace(RELEASE, gate=GateRules(mode="before", model=gates.VERSION, target_rate=0.9))
_REFERENCE = Reference(searches=100, columns={"score": Column(ends=(0.0,), shares=(0.5, 0.5))})
_NOBODY = "127.0.0.1:1"


@dataclass(frozen=True)
class ObservedCluster:
    """Its processes are named after their roles and note in `targets_dir` where they are scraped."""

    client: HeadraceClient
    targets_dir: Path

    async def visit(self) -> None:
        """Search what lacks the ranker, which is on a shard that is gone, and click on something."""
        assert (await self.client.search(SURFACE, "red mug")).gaps
        await self.client.record_events([Event(user_id="u1", item_id="item-001", action="click")])

    async def scrape(self) -> dict[str, Scraped]:
        """Return what each role exports."""
        found = metrics_targets(self.targets_dir)
        return {target.role: await asyncio.to_thread(scrape, target.address) for target in found}


@asynccontextmanager
async def observed_cluster(root: Path) -> AsyncIterator[ObservedCluster]:
    """Run the cluster, with a release deployed."""
    state = root / "state"
    build_models(root / "models")
    gates.write_gate(root / "models")
    for model in RELEASE.models():
        with_reference(root / "models", model, _REFERENCE)
    seen = {
        role: ProcessTelemetry(role=role, name=role, settings=Telemetry(), targets_dir=state / TARGETS)
        for role in (ROUTER, CONTROLLER)
    }
    metrics = ControllerMetrics()
    async with AsyncExitStack() as stack:
        watched = QualitySettings(share=1.0, least_searches=1)
        shards = await stack.enter_async_context(
            in_process_shards(state, telemetry=Telemetry(), quality=watched)
        )
        controller = await stack.enter_async_context(running_controller(root, shards, (SHARD,)))
        stack.enter_context(metrics_port(seen[CONTROLLER], metrics.instruments()))
        stack.enter_context(metrics.showing(controller.driver))
        await controller.deploy(RELEASE)
        addresses = {SHARD: await shards.address(SHARD), "gone": _NOBODY}
        holders = {str(model): [SHARD] for model in RELEASE.models()} | {"ranker@1": ["gone"]}
        router = await stack.enter_async_context(
            running(
                placed([GATED], holders, addresses),
                state,
                telemetry=seen[ROUTER],
                bundle_root=root / "models",
            )
        )
        client = await stack.enter_async_context(HeadraceClient(router.address, timeout_s=10.0))
        cluster = ObservedCluster(client, state / TARGETS)
        await cluster.visit()
        await _watched(cluster)
        yield cluster


async def _watched(cluster: ObservedCluster) -> None:
    """Return once the shard has looked at an answer again."""
    for _ in range(600):
        if (await cluster.scrape())[SHARD].labels("headrace_shard_drift_alarm"):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no answer was watched")
