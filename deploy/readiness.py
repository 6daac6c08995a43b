"""From processes that run to a cluster that answers: releases are deployed, and every surface is tried."""

import asyncio
import time
from collections.abc import Callable, Sequence

import grpc

from deploy.caller_channel import caller_channel
from deploy.release_files import read_release, surfaces
from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import cluster_service_pb2_grpc
from router.client import HeadraceClient, SearchError
from services.codec import release_to_proto
from services.status import from_rpc_error
from shards.errors import HeadraceError, Unavailable
from shards.release import Release

_CALL_TIMEOUT_S = 10.0
_DEPLOY_TIMEOUT_S = 900.0
_SEARCHABLE_TIMEOUT_S = 60.0
_LOOK_EVERY_S = 0.1


async def deploy_releases(
    controller: str, workspace: Workspace, say: Callable[[str], None], token: str | None
) -> tuple[str, ...]:
    """Bring every release of the workspace live; returns their surfaces.

    A release that is refused does no harm where an earlier one of its surface is live, which then stays
    so; otherwise raises `Unavailable` with the reason.
    """
    found = surfaces(workspace)
    if not found:
        say(f"No release in {workspace.releases_dir}: nothing to search yet.")
    async with caller_channel(controller, token) as channel:
        for surface in found:
            release = read_release(workspace, surface)
            say(f"Deploying {surface} {release.version} …")
            try:
                await deploy(channel, release, say)
            except HeadraceError as error:
                live = await _live_version(channel, surface)
                if live is None:
                    raise Unavailable(f"release {release.version!r} of {surface!r}: {error}") from error
                say(f"Refused: {error}. {surface} {live} stays live.")
    return found


async def deploy(channel: grpc.aio.Channel, release: Release, say: Callable[[str], None]) -> pb.Operation:
    """Bring a release live through the controller; returns the operation that succeeded.

    Raises what the controller refuses it with, and `Unavailable` with the reason when it fails later.
    """
    stub = cluster_service_pb2_grpc.ClusterServiceStub(channel)
    try:
        async with asyncio.timeout(_DEPLOY_TIMEOUT_S):
            answer = await stub.DeployRelease(
                pb.DeployReleaseRequest(release=release_to_proto(release)),
                timeout=_CALL_TIMEOUT_S,
                wait_for_ready=True,
            )
            return await _finished(stub, answer.operation, say)
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error) from error
    except TimeoutError as error:
        raise Unavailable(f"not live after {_DEPLOY_TIMEOUT_S:.0f} s") from error


async def _finished(
    stub: "cluster_service_pb2_grpc.ClusterServiceAsyncStub",
    operation: pb.Operation,
    say: Callable[[str], None],
) -> pb.Operation:
    detail = ""
    while operation.state == pb.OPERATION_STATE_RUNNING:
        if operation.detail != detail:
            detail = operation.detail
            say(f"  {detail} ({operation.steps_done} of {operation.steps_total})")
        await asyncio.sleep(_LOOK_EVERY_S)
        request = pb.GetOperationRequest(operation_id=operation.operation_id)
        operation = (await stub.GetOperation(request, timeout=_CALL_TIMEOUT_S)).operation
    if operation.state != pb.OPERATION_STATE_SUCCEEDED:
        raise Unavailable(operation.detail)
    return operation


async def _live_version(channel: grpc.aio.Channel, surface: str) -> str | None:
    stub = cluster_service_pb2_grpc.ClusterServiceStub(channel)
    response = await stub.GetPlacement(pb.GetPlacementRequest(), timeout=_CALL_TIMEOUT_S)
    return next((r.version for r in response.placement.releases if r.surface == surface), None)


async def wait_until_searchable(router: str, wanted: Sequence[str], token: str | None) -> None:
    """Return when the router answers a search on every surface in full.

    Raises `Unavailable` with what was missing last when that takes longer than a minute.
    """
    async with HeadraceClient(router, token, timeout_s=5.0) as client:
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
