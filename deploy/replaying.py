"""A split replayed through the running cluster: as its searches go by, refreshed releases go live.

Each release answers its stretch of the searches in the cluster and in one process, so that the two can be
compared. In the end the release of before is live again; what was made for the replay stays in the workspace.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

from deploy.controller_client import ask
from deploy.evaluation import OnlineOptions, OnlineRun, await_release, run_online
from deploy.operation_watch import CHANGE_TIMEOUT_S, follow
from deploy.refreshing import refresh_release
from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec import release_to_proto
from shards.errors import Refused
from shards.release import Release
from training.evaluation.judgements import Judged
from training.evaluation.offline import evaluate, open_cascade
from training.evaluation.report import Ranks, joined
from training.refreshing import moments
from training.run import Run

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """The same searches in one process and through the cluster; `releases` answered them."""

    offline: Ranks
    online: OnlineRun
    releases: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Where a cluster is: HOST:PORT of a controller and of a router."""

    controller: str
    router: str


def replay_online(
    run: Run,
    release: Release,
    workspace: Workspace,
    judged: Sequence[Judged],
    every_days: float,
    cluster: Cluster,
    options: OnlineOptions,
    *,
    on_query: Callable[[], None] = lambda: None,
) -> Replayed:
    """Replay the queries in order of time, the release refreshed so often.

    Raises what `refresh_release`, a deployment and `run_online` raise; the release of before is live again
    then, too.
    """
    judged = sorted(judged, key=lambda query: query.context.now_ms)
    times_ms = [query.context.now_ms for query in judged]
    offline, online = [], []
    try:
        for now_ms, searches in moments(release, times_ms, every_days):
            serving = refresh_release(run, release, workspace, now_ms)
            _go_live(serving, cluster, options)
            asked = judged[searches]
            answered = asyncio.run(run_online(cluster.router, serving, asked, options, on_query=on_query))
            opened = iter(answered.opened)
            cascade = open_cascade(serving, workspace.models_dir)
            offline.append(evaluate(cascade, asked, gate=lambda *_, opened=opened: next(opened)))
            online.append(answered)
    finally:
        _go_live(release, cluster, options)
    whole = OnlineRun(
        ranks=joined([part.ranks for part in online]),
        degraded=tuple(chain.from_iterable(part.degraded for part in online)),
        opened=tuple(chain.from_iterable(part.opened for part in online)),
    )
    return Replayed(offline=joined(offline), online=whole, releases=len(online))


def _go_live(release: Release, cluster: Cluster, options: OnlineOptions) -> None:
    """Deploy a release and return when the router answers with it. Raises `Refused` where it fails."""

    async def deployed(stub: "ClusterServiceAsyncStub") -> pb.Operation:
        request = pb.DeployReleaseRequest(
            release=release_to_proto(release), role=pb.RELEASE_ROLE_LIVE, percent=100.0
        )
        operation = (await stub.DeployRelease(request, timeout=CHANGE_TIMEOUT_S)).operation
        return await follow(stub, operation, lambda _: None)

    operation = ask(cluster.controller, deployed)
    if operation.state != pb.OPERATION_STATE_SUCCEEDED:
        raise Refused(operation.detail or f"{release.name} did not go live")
    asyncio.run(await_release(cluster.router, release, options))
