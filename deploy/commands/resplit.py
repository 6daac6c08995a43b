"""`headrace release resplit`: divides a channel of a live release anew while it serves."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    ControllerOption,
    JsonOption,
    WaitOption,
    WorkspaceOption,
    controller_address,
)
from deploy.commands.split import PartitionsOption, split_models
from deploy.controller_client import TIMEOUT_S, ask
from deploy.operation_watch import CHANGE_TIMEOUT_S, carry_out
from deploy.release_files import write_release
from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec import placement_from_proto, release_to_proto
from shards.errors import FieldViolation, InvalidInput, NotFound
from shards.release import Release, ReleaseChannel


def resplit(
    surface: Annotated[str, typer.Argument(help="The surface whose live release is changed.")],
    channel: Annotated[str, typer.Argument(help="The retrieval channel to divide.")],
    partitions: PartitionsOption,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Divide a channel's catalogue into more partitions, say twice as many, without losing a search.

    The partitions are written, and a release that names them is deployed: the old ones answer until the new
    ones are ready everywhere, then all searches turn to the new ones at once. 1 goes back to the whole model.
    """
    address = controller_address(controller, workspace)
    live = live_release(address, surface)
    divided = _channel(live, channel, partitions)
    if partitions > 1:
        split_models(Workspace(workspace).models_dir, divided.model, partitions)
    wanted = resplit_release(live, divided)
    make_live(wanted, address, workspace, own=not controller, wait=wait, as_json=as_json)


def make_live(
    wanted: Release, address: str, workspace: Path, *, own: bool, wait: bool = True, as_json: bool = False
) -> None:
    """Deploy a release in place of the live one; the workspace keeps it where the cluster is its own."""
    request = pb.DeployReleaseRequest(release=release_to_proto(wanted), role=pb.RELEASE_ROLE_LIVE)
    done = carry_out(
        address,
        lambda stub: stub.DeployRelease(request, timeout=CHANGE_TIMEOUT_S),
        wait=wait,
        as_json=as_json,
    )
    if done and own:
        write_release(Workspace(workspace), wanted)


def resplit_release(live: Release, divided: ReleaseChannel) -> Release:
    """Return the release with this channel in place of its own, under a version that says so."""
    before = next(channel for channel in live.channels if channel.name == divided.name)
    version = live.version.removesuffix(_suffix(before)) + _suffix(divided)
    return replace(with_channel(live, divided), version=version)


def with_channel(live: Release, changed: ReleaseChannel) -> Release:
    """Return the release with this channel in place of the one of its name."""
    channels = tuple(changed if channel.name == changed.name else channel for channel in live.channels)
    return replace(live, channels=channels)


def _suffix(channel: ReleaseChannel) -> str:
    return f".{channel.name}-{channel.partitions}"


def live_release(address: str, surface: str) -> Release:
    """Return what is live on a surface; raises `NotFound` where nothing is."""
    response = ask(address, lambda stub: stub.GetPlacement(pb.GetPlacementRequest(), timeout=TIMEOUT_S))
    releases = placement_from_proto(response.placement).releases
    if surface not in releases:
        raise NotFound("surface", surface)
    return releases[surface]


def _channel(live: Release, name: str, partitions: int) -> ReleaseChannel:
    """Return the channel as it shall be."""
    found = next((channel for channel in live.channels if channel.name == name), None)
    if found is None:
        names = ", ".join(channel.name for channel in live.channels)
        raise InvalidInput(FieldViolation("channel", f"{name!r} is none of {live.name}: {names}"))
    if partitions < 1 or partitions == found.partitions:
        problem = f"must be at least 1 and other than {found.partitions}, which {name!r} has"
        raise InvalidInput(FieldViolation("partitions", problem))
    return replace(found, partitions=partitions)
