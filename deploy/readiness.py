"""From processes that run to a cluster that answers: releases are deployed, and every surface is tried."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import grpc

from deploy.caller_channel import caller_channel
from deploy.operation_watch import CHANGE_TIMEOUT_S, follow, progress_line
from deploy.release_files import read_release, surfaces
from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import cluster_service_pb2_grpc
from router.client import HeadraceClient, SearchError
from router.credentials import Credentials
from services.codec import release_to_proto
from services.status import from_rpc_error
from services.tls import Party
from shards.errors import HeadraceError, Unavailable
from shards.release import Release

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

T = TypeVar("T")

_CALL_TIMEOUT_S = 10.0
_DEPLOY_TIMEOUT_S = 900.0
_SEARCHABLE_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.1


async def deploy_releases(
    controller: str, workspace: Workspace, say: Callable[[str], None], credentials: Credentials
) -> tuple[str, ...]:
    """Bring every release of the workspace live that the cluster does not know yet; returns their surfaces.

    One that the cluster has had before and left, by a rollback or for another release, is not brought
    back: what operators did outlives a restart. A release that is refused does no harm where an earlier
    one of its surface is live, which then stays so; otherwise raises `Unavailable` with the reason.
    """
    found = surfaces(workspace)
    if not found:
        say(f"No release in {workspace.releases_dir}: nothing to search yet.")
    async with caller_channel(controller, credentials, Party.CONTROLLER) as channel:
        stub = cluster_service_pb2_grpc.ClusterServiceStub(channel)
        for surface in found:
            release = read_release(workspace, surface)
            live = await _live(stub, surface)
            if live and live.version != release.version and await _left(stub, release):
                say(
                    f"{surface} {live.version} stays live: the cluster has had {release.version} and left it."
                )
                continue
            say(f"Deploying {surface} {release.version} …")
            try:
                await _deploy(stub, release, say)
            except HeadraceError as error:
                if live is None:
                    raise Unavailable(f"release {release.version!r} of {surface!r}: {error}") from error
                say(f"Refused: {error}. {surface} {live.version} stays live.")
    return found


async def _live(stub: "ClusterServiceAsyncStub", surface: str) -> pb.Release | None:
    # A controller that stands for election is not there before it leads.
    response = await _asked(
        stub.ListReleases(pb.ListReleasesRequest(), timeout=_CALL_TIMEOUT_S, wait_for_ready=True)
    )
    live = (s.live for s in response.surfaces if s.surface == surface and s.HasField("live"))
    return next(live, None)


async def _left(stub: "ClusterServiceAsyncStub", release: Release) -> bool:
    """Return whether the cluster has had this very release, or has it still beside the live one."""
    wanted = release_to_proto(release)
    releases = await _asked(stub.ListReleases(pb.ListReleasesRequest(), timeout=_CALL_TIMEOUT_S))
    for surface in releases.surfaces:
        traffic = surface.traffic
        if wanted in (traffic.canary, traffic.shadow, traffic.previous):
            return True
    ended = await _asked(stub.ListOperations(pb.ListOperationsRequest(), timeout=_CALL_TIMEOUT_S))
    deployed = (o.deploy_release.release for o in ended.operations if o.state == pb.OPERATION_STATE_SUCCEEDED)
    return wanted in deployed


async def _deploy(
    stub: "ClusterServiceAsyncStub", release: Release, say: Callable[[str], None]
) -> pb.Operation:
    """Bring a release live through the controller; returns the operation that succeeded.

    Raises what the controller refuses it with, and `Unavailable` with the reason when it fails later.
    """
    request = pb.DeployReleaseRequest(release=release_to_proto(release))
    told = {""}

    def tell(operation: pb.Operation) -> None:
        line = progress_line(operation)
        if line not in told:
            say(line)
        told.add(line)

    try:
        async with asyncio.timeout(_DEPLOY_TIMEOUT_S):
            call = stub.DeployRelease(request, timeout=CHANGE_TIMEOUT_S, wait_for_ready=True)
            operation = await follow(stub, (await _asked(call)).operation, tell)
    except TimeoutError as error:
        raise Unavailable(f"not live after {_DEPLOY_TIMEOUT_S:.0f} s") from error
    if operation.state != pb.OPERATION_STATE_SUCCEEDED:
        raise Unavailable(operation.detail)
    return operation


async def _asked(call: Awaitable[T]) -> T:
    try:
        return await call
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error


async def wait_until_searchable(router: str, wanted: Sequence[str], credentials: Credentials) -> None:
    """Return when the router answers a search on every surface in full.

    Raises `Unavailable` with what was missing last when that takes longer than a minute.
    """
    async with HeadraceClient(router, credentials.token, tls=credentials.tls, timeout_s=5.0) as client:
        for surface in wanted:
            late_s = time.monotonic() + _SEARCHABLE_TIMEOUT_S
            while problem := await _problem(client, surface):
                if time.monotonic() > late_s:
                    raise Unavailable(f"{surface!r} cannot be searched: {problem}")
                await asyncio.sleep(_LOOK_EVERY_S)


async def _problem(client: HeadraceClient, surface: str) -> str:
    """Return what is wrong with a search on the surface, or nothing."""
    try:
        result = await client.search(surface, "a", page_size=1)
    except SearchError as error:
        return str(error)
    return "; ".join(f"{gap.model} {gap.reason}: {gap.detail}" for gap in result.gaps)
