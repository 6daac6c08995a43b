"""300 real bundles on 4 shards of a running cluster, all of them answering: part of `make bench-shards`.

Bundles of every engine, each pinned by one of 43 surfaces and held on two shards, are deployed at once
through ClusterService. Then every surface is searched through a router, and every model answers its
goldens through the router's stage proxy.
"""

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import grpc
import numpy as np

from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceStub
from router.client import HeadraceClient
from services.chassis import channel_options
from services.codec import duration_from_proto, release_to_proto
from shards.errors import HeadraceError
from shards.release import ModelVersion, Release, ReleaseScorer, Stage
from tests.bench.process_use import ProcessUse
from tests.bench.remote_models import replay_remotely
from tests.bench.result import Check, at_least, at_most, publish
from tests.deploy.running_cluster import PATIENT, RunningCluster, running_cluster
from tests.shards.bundles import build_models
from tests.shards.many_bundles import build_many

BUNDLES, SHARDS, REPLICAS = 300, 4, 2
IDLE_S = 10.0
DEPLOY_TIMEOUT_S = 900.0
CONTROLLER_IDLE_CPU_AIM = 0.10
"""Of one core, with all bundles in place and nothing to do."""

_ASKERS = 4

Figures = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Park:
    """The running cluster, its bundles and the releases that pin them."""

    cluster: RunningCluster
    models: Mapping[ModelVersion, Stage]
    releases: Sequence[Release]

    def folder(self, model: ModelVersion) -> Path:
        """Return where a bundle is on disk."""
        return self.cluster.workspace.models_dir / model.model / model.version

    def stub(self) -> ClusterServiceStub:
        """Return a stub of the controller."""
        return ClusterServiceStub(grpc.insecure_channel(self.cluster.controller, options=channel_options()))


def main() -> None:
    """Run the benchmark alone."""
    figures = measure()
    publish("many_models", settings=settings(), figures=figures, checks=checks(figures))


def settings() -> Figures:
    """Return what the figures were taken with."""
    return {"bundles": BUNDLES, "shards": SHARDS, "replicas": REPLICAS}


def measure() -> Figures:
    """Return how many bundles answer as they should, and what holding them takes."""
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        build_models(root / "kinds")
        models = build_many(root / "workspace" / "models", root / "kinds", BUNDLES)
        workspace = Workspace(root / "workspace")
        options = ("--shards", str(SHARDS), "--replicas", str(REPLICAS), "--routers", "1")
        with running_cluster(workspace, *options) as cluster:
            return _measured(Park(cluster=cluster, models=models, releases=releases_of(models)))


def releases_of(models: Mapping[ModelVersion, Stage]) -> list[Release]:
    """Return releases that pin every bundle once; the last one does without what is left over."""
    kinds = sorted(PATIENT.models())
    names = sorted(models, key=lambda model: model.model.rpartition("-")[2])
    found = []
    for number, start in enumerate(range(0, len(names), len(kinds))):
        by_kind = {name.model.rpartition("-")[0]: name for name in names[start : start + len(kinds)]}
        channels = [
            replace(channel, model=by_kind[channel.model.model])
            for channel in PATIENT.channels
            if channel.model.model in by_kind
        ]
        found.append(
            replace(
                PATIENT,
                surface=f"surface-{number:02d}",
                channels=tuple(channels),
                pre_ranker=_scorer(PATIENT.pre_ranker, by_kind),
                ranker=_scorer(PATIENT.ranker, by_kind),
            )
        )
    return found


def _scorer(scorer: ReleaseScorer | None, by_kind: Mapping[str, ModelVersion]) -> ReleaseScorer | None:
    if scorer is None or scorer.model.model not in by_kind:
        return None
    return replace(scorer, model=by_kind[scorer.model.model], budget_ms=3_000)


def checks(figures: Figures) -> list[Check]:
    """Return the figures beside their aims."""
    return [
        at_least(f"bundles answering their goldens on {SHARDS} shards", figures["answering"], BUNDLES),
        at_least("surfaces answering in full", figures["surfaces_complete"], figures["surfaces"]),
        at_least("replicas ready", figures["replicas"], BUNDLES * REPLICAS),
        at_most(
            "cores that the controller takes when all is calm",
            figures["controller"]["idle_cores"],
            CONTROLLER_IDLE_CPU_AIM,
        ),
    ]


def _measured(park: Park) -> Figures:
    stub = park.stub()
    controller = park.cluster.pid("controller")
    # The first surface brings the libraries of every engine into its shards; they are no bundle's.
    asyncio.run(_deploy_all(park, park.releases[:1]))
    shards_before = _shards(stub)
    before = ProcessUse.of(controller)
    started = time.perf_counter()
    asyncio.run(_deploy_all(park, park.releases[1:]))
    deploy_s = time.perf_counter() - started
    deployed = ProcessUse.of(controller)
    shards_deployed = _shards(stub)
    searched = asyncio.run(_complete_surfaces(park))
    wrong = _wrong_answers(park)
    idle_from = ProcessUse.of(controller)
    time.sleep(IDLE_S)
    idle_to = ProcessUse.of(controller)
    shards = _shards(stub)
    replicas = [replica for shard in shards for replica in shard.replicas]
    return {
        "answering": len(park.models) - len(wrong),
        "wrong": wrong,
        "surfaces": len(park.releases),
        "surfaces_complete": searched,
        "replicas": len(replicas),
        "memory_bytes_per_replica": _spread([float(r.memory_bytes) for r in replicas]),
        "resident_bytes_per_replica": _growth_per_replica(shards_before, shards_deployed),
        "shard_resident_bytes": {
            name: {shard.shard_id: shard.resident_bytes for shard in found}
            for name, found in (
                ("one surface", shards_before),
                ("all surfaces", shards_deployed),
                ("all asked", shards),
            )
        },
        "load_time_ms": _spread([duration_from_proto(r.load_time) * 1000 for r in replicas]),
        "deploy_all_s": deploy_s,
        "generations": stub.GetPlacement(pb.GetPlacementRequest(), timeout=30).placement.generation,
        "placement_bytes": park.cluster.workspace.placement_path.stat().st_size,
        "controller": {
            "deploy_cpu_s": deployed.cpu_s - before.cpu_s,
            "idle_cores": (idle_to.cpu_s - idle_from.cpu_s) / IDLE_S,
            "memory_bytes": idle_to.memory_bytes,
            "memory_bytes_before": before.memory_bytes,
        },
    }


def _shards(stub: ClusterServiceStub) -> list[pb.Shard]:
    return list(stub.ListShards(pb.ListShardsRequest(), timeout=30).shards)


def _growth_per_replica(before: Sequence[pb.Shard], after: Sequence[pb.Shard]) -> float:
    """Return the resident memory that a bundle added to shards which had their libraries before."""
    first = {shard.shard_id: shard for shard in before if shard.replicas}
    warm = [shard for shard in after if shard.shard_id in first]
    grown = sum(shard.resident_bytes - first[shard.shard_id].resident_bytes for shard in warm)
    added = sum(len(shard.replicas) - len(first[shard.shard_id].replicas) for shard in warm)
    return grown / added


async def _deploy_all(park: Park, releases: Sequence[Release]) -> None:
    """Deploy releases at once; raises AssertionError with the reason where one fails."""
    async with grpc.aio.insecure_channel(park.cluster.controller, options=channel_options()) as channel:
        stub = ClusterServiceStub(channel)
        asked: Callable[..., Awaitable[Any]] = stub.DeployRelease
        looked: Callable[..., Awaitable[Any]] = stub.GetOperation

        async def deploy(release: Release) -> None:
            request = pb.DeployReleaseRequest(release=release_to_proto(release))
            operation = (await asked(request, timeout=60)).operation
            while operation.state == pb.OPERATION_STATE_RUNNING:
                await asyncio.sleep(0.5)
                wanted = pb.GetOperationRequest(operation_id=operation.operation_id)
                operation = (await looked(wanted, timeout=30)).operation
            assert operation.state == pb.OPERATION_STATE_SUCCEEDED, (release.surface, operation.detail)

        async with asyncio.timeout(DEPLOY_TIMEOUT_S), asyncio.TaskGroup() as group:
            for release in releases:
                group.create_task(deploy(release))


async def _complete_surfaces(park: Park) -> int:
    """Return how many surfaces answer a search in full, with their own release."""
    complete = 0
    async with HeadraceClient(park.cluster.router, timeout_s=10.0) as client:
        for release in park.releases:
            result = await client.search(release.surface, "red mug", user_id="u1", page_size=5)
            complete += bool(result.complete and len(result.items) == 5)
    return complete


def _wrong_answers(park: Park) -> dict[str, str]:
    """Return the bundles that do not answer their goldens through the router, and what is wrong."""

    def problem(model: ModelVersion) -> str:
        try:
            replay_remotely(channel, model, park.models[model], park.folder(model))
        except (HeadraceError, grpc.RpcError) as error:
            return str(error)
        return ""

    with (
        grpc.insecure_channel(park.cluster.router, options=channel_options()) as channel,
        ThreadPoolExecutor(_ASKERS) as askers,
    ):
        problems = dict(zip(park.models, askers.map(problem, park.models), strict=True))
    return {str(model): found for model, found in problems.items() if found}


def _spread(values: Sequence[float]) -> dict[str, float]:
    p50, p99 = np.quantile(values, [0.5, 0.99])
    return {
        "mean": round(float(np.mean(values)), 1),
        "p50": round(float(p50), 1),
        "p99": round(float(p99), 1),
        "max": round(max(values), 1),
    }


if __name__ == "__main__":
    main()
