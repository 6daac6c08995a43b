"""The cluster that a simulation begins with: one described in figures, or one that runs."""

import asyncio
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from deploy.controller_client import TIMEOUT_S
from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec.placement import placement_from_proto
from shards.placement import Placement
from shards.planner import Assigned, ModelFacts, ShardFacts
from shards.release import ModelVersion

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

_MB = 2**20
_SIZE_SPREAD = 0.5
"""Standard deviation of the logarithm of a described bundle's memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Shards, models and where they are; an empty placement leaves that to the planner."""

    shards: tuple[ShardFacts, ...]
    models: tuple[ModelFacts, ...]
    placement: Assigned


def described_cluster(
    *, shards: int, nodes: int, models: int, memory_mb: float, capacity_mb: float, seed: int
) -> Cluster:
    """Return shards spread over nodes, and models whose memory is log-normal with this median."""
    rng = random.Random(seed)
    capacity_bytes = int(capacity_mb * _MB)
    return Cluster(
        shards=tuple(
            ShardFacts(shard_id=f"shard-{i}", node=f"node-{i % nodes}", capacity_bytes=capacity_bytes)
            for i in range(shards)
        ),
        models=tuple(
            ModelFacts(
                model=ModelVersion(f"model-{i:04}", "1"),
                memory_bytes=int(memory_mb * _MB * math.exp(rng.gauss(0, _SIZE_SPREAD))),
            )
            for i in range(models)
        ),
        placement={},
    )


async def ask_running_cluster(stub: "ClusterServiceAsyncStub") -> Cluster:
    """Return what a controller knows of its cluster now."""
    shards, models, placement = await asyncio.gather(
        stub.ListShards(pb.ListShardsRequest(), timeout=TIMEOUT_S),
        stub.ListModels(pb.ListModelsRequest(), timeout=TIMEOUT_S),
        stub.GetPlacement(pb.GetPlacementRequest(), timeout=TIMEOUT_S),
    )
    return running_cluster(shards.shards, models.models, placement_from_proto(placement.placement))


def running_cluster(shards: Iterable[pb.Shard], known: Iterable[pb.Model], placement: Placement) -> Cluster:
    """Return the cluster as the planner sees it, with the bundles that are placed now."""
    releases, groups = _releases(placement)
    models = [m for m in known if m.shard_ids]
    return Cluster(
        shards=tuple(_shard_facts(shard) for shard in shards),
        models=tuple(_model_facts(model, releases, groups) for model in models),
        placement={_version(m): tuple(sorted(m.shard_ids)) for m in models},
    )


def _releases(placement: Placement) -> tuple[dict[ModelVersion, set[str]], dict[ModelVersion, str]]:
    """Return the releases that pin each bundle, and the catalogue of which it is a partition."""
    releases: dict[ModelVersion, set[str]] = {}
    groups: dict[ModelVersion, str] = {}
    others = (release for traffic in placement.traffic.values() for release in traffic.releases())
    for release in (*placement.releases.values(), *others):
        for model in release.models():
            releases.setdefault(model, set()).add(release.name)
        for channel in (channel for channel in release.channels if channel.partitions > 1):
            groups.update(dict.fromkeys(channel.bundles(), str(channel.model)))
    return releases, groups


def _shard_facts(shard: pb.Shard) -> ShardFacts:
    drained = shard.state in (pb.SHARD_STATE_DRAINING, pb.SHARD_STATE_DRAINED)
    return ShardFacts(
        shard_id=shard.shard_id,
        node=shard.node or shard.address.rpartition(":")[0],
        capacity_bytes=shard.capacity_bytes,
        gpu_capacity_bytes=shard.gpu_capacity_bytes,
        lost_since_ms=0 if shard.state == pb.SHARD_STATE_DOWN else None,
        drained=drained,
    )


def _model_facts(
    model: pb.Model, releases: dict[ModelVersion, set[str]], groups: dict[ModelVersion, str]
) -> ModelFacts:
    version = _version(model)
    return ModelFacts(
        model=version,
        memory_bytes=model.memory_bytes or model.size_bytes,
        gpu_memory_bytes=max((r.replica.gpu_memory_bytes for r in model.replicas), default=0),
        releases=frozenset(releases.get(version, ())),
        min_replicas=model.policy.min_replicas or None,
        max_replicas=model.policy.max_replicas or None,
        group=groups.get(version, ""),
        on_demand=model.policy.on_demand,
    )


def _version(model: pb.Model) -> ModelVersion:
    return ModelVersion(model.model.model, model.model.version)
