"""Releases that become live from the console, kept for the next `headrace up` of the cluster's workspace."""

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from starlette.requests import Request

from deploy.console.changes import Form, cluster_of
from deploy.controller_client import TIMEOUT_S
from deploy.operation_watch import follow
from deploy.release_files import keep_live
from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from shards.errors import HeadraceError

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

log = logging.getLogger(__name__)


def keep(request: Request, form: Form, operation: pb.Operation) -> None:
    """Follow an operation to its end, and then keep what is live on its surface."""
    folder: Path | None = request.app.state.settings.workspace
    if folder is None:
        return
    tasks: set[asyncio.Task[None]] = request.app.state.tasks
    task = asyncio.ensure_future(_kept(request, Workspace(folder), form.get("surface", ""), operation))
    tasks.add(task)
    task.add_done_callback(tasks.discard)


async def _kept(request: Request, workspace: Workspace, surface: str, operation: pb.Operation) -> None:
    async def followed(stub: "ClusterServiceAsyncStub") -> pb.ListReleasesResponse | None:
        ended = await follow(stub, operation, lambda _: None)
        if ended.state != pb.OPERATION_STATE_SUCCEEDED:
            return None
        return await stub.ListReleases(pb.ListReleasesRequest(), timeout=TIMEOUT_S)

    try:
        found = await cluster_of(request).ask(followed)
        if found:
            await asyncio.to_thread(keep_live, workspace, found, surface)
    except (HeadraceError, OSError) as error:
        log.error("what is live on %s is not kept for the next start: %s", surface, error)
