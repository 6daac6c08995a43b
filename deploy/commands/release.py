"""`headrace release`: what answers for a surface, what is tried beside it, and the way back."""

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
from deploy.commands.resplit import resplit
from deploy.controller_client import TIMEOUT_S, ask
from deploy.operation_watch import CHANGE_TIMEOUT_S, carry_out
from deploy.release_files import read_release_file, write_release
from deploy.views.releases import aliases_table, gates_table, releases_table, shadows_table
from deploy.views.table import show
from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec import release_from_proto, release_to_proto
from shards.errors import NotFound
from shards.release import Release

app = typer.Typer(no_args_is_help=True)
app.command("resplit")(resplit)

FileArgument = Annotated[
    Path, typer.Argument(metavar="FILE", help="The release as JSON, for instance releases/movielens.json.")
]
NameArgument = Annotated[
    str, typer.Argument(metavar="FILE|SURFACE", help="A release to deploy, or the surface of a loaded one.")
]
VersionArgument = Annotated[
    str, typer.Argument(metavar="[VERSION]", help="With SURFACE: the loaded release whose share changes.")
]
SurfaceArgument = Annotated[str, typer.Argument(metavar="SURFACE", help="The surface.")]
PercentOption = Annotated[float, typer.Option(help="Share in percent; 0 ends a loaded one.")]


@app.callback()
def release() -> None:
    """Deploy releases, try them on a share of users, roll back."""


@app.command("list")
def list_releases(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    as_json: JsonOption = False,
) -> None:
    """Show what answers for every surface, what is tried beside it, and how shadows compare."""
    found = _listed(controller_address(controller, workspace))
    views = [releases_table(found.surfaces)]
    if any(surface.HasField("shadow_report") for surface in found.surfaces):
        views.append(shadows_table(found.surfaces))
    if any(surface.HasField("gate_report") for surface in found.surfaces):
        views.append(gates_table(found.surfaces))
    if found.aliases:
        views.append(aliases_table(found.aliases))
    show(found, *views, as_json=as_json)


@app.command("deploy")
def deploy(
    file: FileArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Load a release's models, replay their goldens, and only then let it answer for its surface.

    What was live stays live when anything is refused. The workspace keeps the release for the next `up`.
    """
    wanted = read_release_file(file)
    address = controller_address(controller, workspace)
    surface = _deploy(address, wanted, pb.RELEASE_ROLE_LIVE, 100.0, wait=wait, as_json=as_json)
    _keep_live(surface, address, workspace, own=not controller)


@app.command("canary")
def canary(
    name: NameArgument,
    percent: PercentOption,
    version: VersionArgument = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Let a release answer a share of a surface's users, or change that share.

    Who is in it depends on the user alone: a higher share only adds users.
    """
    wanted = None if version else read_release_file(Path(name))
    address = controller_address(controller, workspace)
    if wanted:
        _deploy(address, wanted, pb.RELEASE_ROLE_CANARY, percent, wait=wait, as_json=as_json)
        return
    surface = _set_traffic(address, name, version, percent, wait=wait, as_json=as_json)
    _keep_live(surface, address, workspace, own=not controller)


@app.command("shadow")
def shadow(
    name: NameArgument,
    percent: PercentOption,
    version: VersionArgument = "",
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Let a release see a share of a surface's searches; its answers are compared, never sent."""
    wanted = None if version else read_release_file(Path(name))
    address = controller_address(controller, workspace)
    if wanted:
        _deploy(address, wanted, pb.RELEASE_ROLE_SHADOW, percent, wait=wait, as_json=as_json)
    else:
        _set_traffic(address, name, version, percent, wait=wait, as_json=as_json)


@app.command("promote")
def promote(
    surface: SurfaceArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Let a surface's canary answer all of it; the workspace keeps it for the next `up`."""
    address = controller_address(controller, workspace)
    found = next((s for s in _listed(address).surfaces if s.surface == surface), None)
    if found is None:
        raise NotFound("surface", surface)
    if not found.traffic.HasField("canary"):
        raise NotFound("canary", surface)
    version = found.traffic.canary.version
    flipped = _set_traffic(address, surface, version, 100.0, wait=wait, as_json=as_json)
    _keep_live(flipped, address, workspace, own=not controller)


@app.command("rollback")
def rollback(
    surface: SurfaceArgument,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Flip a surface back to the release before; the workspace keeps that one for the next `up`."""
    address = controller_address(controller, workspace)
    request = pb.RollbackReleaseRequest(surface=surface)
    done = carry_out(
        address,
        lambda stub: stub.RollbackRelease(request, timeout=CHANGE_TIMEOUT_S),
        wait=wait,
        as_json=as_json,
    )
    _keep_live(surface if done else "", address, workspace, own=not controller)


@app.command("alias")
def alias(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The other name.")],
    target: Annotated[
        str,
        typer.Argument(metavar="[TARGET]", help="A surface, or SURFACE@live, @canary, @previous, @VERSION."),
    ] = "",
    remove: Annotated[bool, typer.Option("--remove", help="End the alias.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Let searches name a surface, or one release of it, in another way."""
    if remove == bool(target):
        raise typer.BadParameter("give either a TARGET or --remove")
    request = pb.SetAliasRequest(alias=name, target=target)
    carry_out(
        controller_address(controller, workspace),
        lambda stub: stub.SetAlias(request, timeout=CHANGE_TIMEOUT_S),
        wait=wait,
        as_json=as_json,
    )


def _listed(address: str) -> pb.ListReleasesResponse:
    return ask(address, lambda stub: stub.ListReleases(pb.ListReleasesRequest(), timeout=TIMEOUT_S))


def _deploy(
    address: str,
    wanted: Release,
    role: pb.ReleaseRole.ValueType,
    percent: float,
    *,
    wait: bool,
    as_json: bool,
) -> str:
    """Deploy a release; returns its surface once it is there, else nothing."""
    request = pb.DeployReleaseRequest(release=release_to_proto(wanted), role=role, percent=percent)
    done = carry_out(
        address,
        lambda stub: stub.DeployRelease(request, timeout=CHANGE_TIMEOUT_S),
        wait=wait,
        as_json=as_json,
    )
    return wanted.surface if done else ""


def _set_traffic(
    address: str, surface: str, version: str, percent: float, *, wait: bool, as_json: bool
) -> str:
    """Set the share of a loaded release; returns its surface once that is done, else nothing."""
    request = pb.SetTrafficRequest(surface=surface, release_version=version, percent=percent)
    done = carry_out(
        address, lambda stub: stub.SetTraffic(request, timeout=CHANGE_TIMEOUT_S), wait=wait, as_json=as_json
    )
    return surface if done else ""


def _keep_live(surface: str, address: str, workspace: Path, *, own: bool) -> None:
    """Keep what is live on the surface for the workspace's next `up`, where the cluster is its own."""
    if not (surface and own):
        return
    for found in _listed(address).surfaces:
        if found.surface == surface and found.HasField("live"):
            write_release(Workspace(workspace), release_from_proto(found.live))
