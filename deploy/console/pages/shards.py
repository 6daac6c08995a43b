"""The shard map: each shard's memory, bundles, load and state, now."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.console.bars import Part, stacked
from deploy.console.changes import Form, change, cluster_of, may_operate
from deploy.console.pages.quality import note_watched
from deploy.console.problems import Problem, tried
from deploy.console.rendering import fragment, render
from deploy.controller_client import Overview, overview
from deploy.operation_watch import CHANGE_TIMEOUT_S, HasOperation
from deploy.views.table import size
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import shard_service_pb2, types_pb2

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

_ANSWERING = (shard_service_pb2.REPLICA_STATE_READY, shard_service_pb2.REPLICA_STATE_COLD)

STAGE_KINDS = {
    types_pb2.STAGE_RETRIEVAL: "retrieval",
    types_pb2.STAGE_PRE_RANKING: "pre-ranking",
    types_pb2.STAGE_RANKING: "ranking",
}
"""Colours of the stages."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardCard:
    """A shard with its bar of memory, and how many of its bundles answer."""

    shard: pb.Shard
    bar: Markup
    gpu_bytes: int
    ready: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """The cluster in a line."""

    serving: int
    shards: int
    memory_bytes: int
    capacity_bytes: int
    load: float
    ready: int
    replicas: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """A bundle, and its replica on each shard, None where it has none."""

    model: pb.Model
    kind: str
    replicas: Sequence[shard_service_pb2.Replica | None]


def card(shard: pb.Shard) -> ShardCard:
    """Return what there is to show of a shard."""
    parts = [
        Part(
            share=replica.memory_bytes / (shard.capacity_bytes or 1),
            kind=STAGE_KINDS.get(replica.stage, "other"),
            title=f"{replica.model.model}@{replica.model.version}: {size(replica.memory_bytes)}",
        )
        for replica in sorted(shard.replicas, key=lambda replica: replica.stage)
        if replica.memory_bytes
    ]
    label = f"{shard.shard_id} uses {size(shard.memory_bytes)} of {size(shard.capacity_bytes)}"
    return ShardCard(
        shard=shard,
        bar=stacked(parts, label=label),
        gpu_bytes=sum(replica.gpu_memory_bytes for replica in shard.replicas),
        ready=sum(replica.state in _ANSWERING for replica in shard.replicas),
    )


def totals(shards: Sequence[pb.Shard]) -> Totals:
    """Return the sums over all shards."""
    replicas = [replica for shard in shards for replica in shard.replicas]
    return Totals(
        serving=sum(shard.state == pb.SHARD_STATE_SERVING for shard in shards),
        shards=len(shards),
        memory_bytes=sum(shard.memory_bytes for shard in shards),
        capacity_bytes=sum(shard.capacity_bytes for shard in shards),
        load=sum(shard.load for shard in shards),
        ready=sum(replica.state in _ANSWERING for replica in replicas),
        replicas=len(replicas),
    )


def model_rows(models: Iterable[pb.Model], shards: Sequence[pb.Shard]) -> list[ModelRow]:
    """Return the bundles in the order of their stages."""
    rows = []
    for model in sorted(models, key=lambda model: (model.stage, model.model.model, model.model.version)):
        held = {each.shard_id: each.replica for each in model.replicas}
        rows.append(
            ModelRow(
                model=model,
                kind=STAGE_KINDS.get(model.stage, "other"),
                replicas=[held.get(shard.shard_id) for shard in shards],
            )
        )
    return rows


async def _page(request: Request) -> Response:
    seen = await tried(cluster_of(request).ask(overview))
    if not isinstance(seen, Problem):
        note_watched(request, seen.models)
    operates = not isinstance(seen, Problem) and await may_operate(request)
    status = seen.status if isinstance(seen, Problem) else 200
    return render(request, "shards.html", status=status, operates=operates, **_known(seen))


async def _live(request: Request) -> Response:
    return fragment(request, "shards_live.html", **_known(await tried(cluster_of(request).ask(overview))))


def _known(seen: Overview | Problem) -> dict[str, object]:
    if isinstance(seen, Problem):
        return {"problem": seen, "seen": None}
    return {
        "problem": None,
        "seen": seen,
        "cards": [card(shard) for shard in seen.shards],
        "totals": totals(seen.shards),
        "rows": model_rows(seen.models, seen.shards),
        "running": [o for o in seen.operations if o.state == pb.OPERATION_STATE_RUNNING],
    }


async def _drain(stub: "ClusterServiceAsyncStub", form: Form) -> HasOperation:
    return await stub.DrainShard(
        pb.DrainShardRequest(shard_id=form.get("shard", "")), timeout=CHANGE_TIMEOUT_S
    )


async def _undrain(stub: "ClusterServiceAsyncStub", form: Form) -> HasOperation:
    request = pb.UndrainShardRequest(shard_id=form.get("shard", ""))
    return await stub.UndrainShard(request, timeout=CHANGE_TIMEOUT_S)


async def _restart(stub: "ClusterServiceAsyncStub", form: Form) -> HasOperation:
    request = pb.RestartShardsRequest(shard_ids=[form.get("shard", "")])
    return await stub.RestartShards(request, timeout=CHANGE_TIMEOUT_S)


async def _freeze(stub: "ClusterServiceAsyncStub", form: Form) -> HasOperation:
    request = pb.FreezeClusterRequest(frozen=form.get("frozen") == "yes")
    return await stub.FreezeCluster(request, timeout=CHANGE_TIMEOUT_S)


ROUTES = [
    Route("/shards", _page, methods=["GET"]),
    Route("/shards/live", _live, methods=["GET"]),
    change("/shards/drain", _drain),
    change("/shards/undrain", _undrain),
    change("/shards/restart", _restart),
    change("/shards/freeze", _freeze),
]
