"""`headrace release`: what answers for a surface, what is tried beside it, and the way back."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from deploy.commands.options import (
    DEFAULT_WORKSPACE,
    ControllerOption,
    DataDirOption,
    JsonOption,
    WaitOption,
    WorkspaceOption,
    controller_address,
)
from deploy.commands.readout import release_readout
from deploy.commands.resplit import resplit
from deploy.controller_client import TIMEOUT_S, ask
from deploy.operation_watch import CHANGE_TIMEOUT_S, carry_out
from deploy.quality_gate import QualityGate, quality_rules
from deploy.release_files import keep_live, read_release_file
from deploy.views.releases import aliases_table, gates_table, releases_table, shadows_table
from deploy.views.table import show
from deploy.workspace import Workspace
from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec import quality_to_proto, release_from_proto, release_to_proto
from shards.errors import NotFound
from shards.release import Release
from shards.release_quality import ReleaseQuality

app = typer.Typer(no_args_is_help=True)
app.command("resplit")(resplit)
app.command("readout")(release_readout)

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
QualityOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Rules of the comparison with what is live; default: the workspace's quality.json.",
    ),
]
OverrideOption = Annotated[
    str, typer.Option(metavar="WHY", help="Go live although it is worse; kept with the release.")
]
_ALL = 100.0
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
    quality: QualityOption = None,
    override_reason: OverrideOption = "",
    data_dir: DataDirOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Load a release's models, replay their goldens, and only then let it answer for its surface.

    It is compared with what is live on held-out queries first, and refused where it is worse. What was live
    stays live when anything is refused. The workspace keeps the release for the next `up`.
    """
    wanted = read_release_file(file)
    address = controller_address(controller, workspace)
    gate = _gate(workspace, quality, override_reason, data_dir)
    wanted = replace(wanted, quality=gate.passed(wanted, _live(address, wanted.surface)))
    surface = _deploy(address, wanted, pb.RELEASE_ROLE_LIVE, 100.0, wait=wait, as_json=as_json)
    _keep_live(surface, address, workspace, own=not controller)


@app.command("canary")
def canary(
    name: NameArgument,
    percent: PercentOption,
    version: VersionArgument = "",
    quality: QualityOption = None,
    override_reason: OverrideOption = "",
    data_dir: DataDirOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Let a release answer a share of a surface's users, or change that share.

    Who is in it depends on the user alone: a higher share only adds users. 100 % makes it live, as `promote`.
    """
    wanted = None if version else read_release_file(Path(name))
    address = controller_address(controller, workspace)
    if wanted:
        _deploy(address, wanted, pb.RELEASE_ROLE_CANARY, percent, wait=wait, as_json=as_json)
        return
    compared = None
    if percent >= _ALL:
        gate = _gate(workspace, quality, override_reason, data_dir)
        compared = _promoted(gate, address, name, version)
    surface = _set_traffic(address, name, version, percent, compared, wait=wait, as_json=as_json)
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
        _set_traffic(address, name, version, percent, None, wait=wait, as_json=as_json)


@app.command("promote")
def promote(
    surface: SurfaceArgument,
    quality: QualityOption = None,
    override_reason: OverrideOption = "",
    data_dir: DataDirOption = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    controller: ControllerOption = "",
    wait: WaitOption = True,
    as_json: JsonOption = False,
) -> None:
    """Let a surface's canary answer all, unless it is worse; the workspace keeps it for the next `up`."""
    address = controller_address(controller, workspace)
    found = _surface(address, surface)
    if found is None:
        raise NotFound("surface", surface)
    if not found.traffic.HasField("canary"):
        raise NotFound("canary", surface)
    version = found.traffic.canary.version
    compared = _promoted(_gate(workspace, quality, override_reason, data_dir), address, surface, version)
    flipped = _set_traffic(address, surface, version, _ALL, compared, wait=wait, as_json=as_json)
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


def _surface(address: str, surface: str) -> pb.SurfaceReleases | None:
    return next((found for found in _listed(address).surfaces if found.surface == surface), None)


def _live(address: str, surface: str) -> Release | None:
    """Return the release that is live on a surface; None where there is none."""
    found = _surface(address, surface)
    return release_from_proto(found.live) if found and found.HasField("live") else None


def _gate(workspace: Path, quality: Path | None, override_reason: str, data_dir: Path | None) -> QualityGate:
    folders = Workspace(workspace)
    rules = quality_rules(quality, folders)
    return QualityGate(
        folders=folders, rules=rules, override_reason=override_reason.strip(), data_dir=data_dir
    )


def _promoted(gate: QualityGate, address: str, surface: str, version: str) -> ReleaseQuality | None:
    """Return what a canary is promoted with; what is no canary is left to the controller to refuse."""
    found = _surface(address, surface)
    if found is None or found.traffic.canary.version != version:
        return None
    live = release_from_proto(found.live) if found.HasField("live") else None
    return gate.passed(release_from_proto(found.traffic.canary), live)


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
    address: str,
    surface: str,
    version: str,
    percent: float,
    quality: ReleaseQuality | None,
    *,
    wait: bool,
    as_json: bool,
) -> str:
    """Set the share of a loaded release; returns its surface once that is done, else nothing."""
    compared = quality_to_proto(quality) if quality else None
    request = pb.SetTrafficRequest(
        surface=surface, release_version=version, percent=percent, quality=compared
    )
    done = carry_out(
        address, lambda stub: stub.SetTraffic(request, timeout=CHANGE_TIMEOUT_S), wait=wait, as_json=as_json
    )
    return surface if done else ""


def _keep_live(surface: str, address: str, workspace: Path, *, own: bool) -> None:
    """Keep what is live on the surface for the workspace's next `up`, where the cluster is its own."""
    if surface and own:
        keep_live(Workspace(workspace), _listed(address), surface)
