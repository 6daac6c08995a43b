"""Releases: what answers for each surface, what is tried beside it, and the way back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from deploy.console.bars import Part, stacked
from deploy.console.changes import Form, change, cluster_of, may_operate
from deploy.console.keeping import keep
from deploy.console.problems import Problem, tried
from deploy.console.rendering import render
from deploy.controller_client import TIMEOUT_S
from deploy.operation_watch import CHANGE_TIMEOUT_S, HasOperation
from deploy.views.releases import pins_of, roles_of
from protos.headrace.v1 import cluster_service_pb2 as pb
from shards.errors import FieldViolation, InvalidInput, NotFound

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.cluster_service_pb2_grpc import ClusterServiceAsyncStub

_ALL = 100.0
_ROLES = {"canary": pb.RELEASE_ROLE_CANARY, "shadow": pb.RELEASE_ROLE_SHADOW}


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedRelease:
    """A release of a surface and what it is there for."""

    role: str
    share: str
    release: pb.Release
    pins: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SurfaceCard:
    """A surface with what it has loaded; the bar divides its users."""

    surface: pb.SurfaceReleases
    loaded: Sequence[LoadedRelease]
    bar: Markup


def card(surface: pb.SurfaceReleases) -> SurfaceCard:
    """Return what there is to show of a surface."""
    canary = surface.traffic.canary_percent if surface.traffic.HasField("canary") else 0.0
    parts = [Part(share=1 - canary / _ALL, kind="accent", title=f"live {surface.live.version}")]
    if canary:
        parts.append(Part(share=canary / _ALL, kind="warn", title=f"canary {surface.traffic.canary.version}"))
    label = f"{_ALL - canary:g} % of the users get the live release, {canary:g} % the canary"
    return SurfaceCard(
        surface=surface,
        loaded=[
            LoadedRelease(role=role, share=share, release=release, pins=pins_of(surface, release))
            for role, share, release in roles_of(surface)
        ],
        bar=stacked(parts, label=label),
    )


async def _page(request: Request) -> Response:
    found = await tried(
        cluster_of(request).ask(lambda stub: stub.ListReleases(pb.ListReleasesRequest(), timeout=TIMEOUT_S))
    )
    if isinstance(found, Problem):
        return render(request, "releases.html", status=found.status, problem=found)
    return render(
        request,
        "releases.html",
        problem=None,
        cards=[card(surface) for surface in found.surfaces],
        aliases=sorted(found.aliases.items()),
        operates=await may_operate(request),
    )


async def _roll_back(stub: "ClusterServiceAsyncStub", form: Form) -> HasOperation:
    wanted = pb.RollbackReleaseRequest(surface=form.get("surface", ""))
    return await stub.RollbackRelease(wanted, timeout=CHANGE_TIMEOUT_S)


async def _share(stub: "ClusterServiceAsyncStub", form: Form) -> HasOperation:
    """Set the share of a canary or shadow; all of the users only by a promotion."""
    percent = _percent(form)
    if percent >= _ALL and form.get("role") == "canary":
        raise InvalidInput(FieldViolation("percent", "all users get a release by its promotion"))
    return await stub.SetTraffic(_traffic(form, percent), timeout=CHANGE_TIMEOUT_S)


async def _promote(stub: "ClusterServiceAsyncStub", form: Form) -> HasOperation:
    """Let a canary answer all; why, where nothing was compared, stays with the release."""
    why = form.get("why", "").strip()
    if not why:
        raise InvalidInput(FieldViolation("why", "say why it is promoted without a comparison"))
    wanted = _traffic(form, _ALL)
    wanted.quality.override_reason = why
    return await stub.SetTraffic(wanted, timeout=CHANGE_TIMEOUT_S)


async def _try_again(stub: "ClusterServiceAsyncStub", form: Form) -> HasOperation:
    """Deploy the release before as a canary or a shadow."""
    role, surface = _ROLES.get(form.get("role", "")), form.get("surface", "")
    if role is None:
        raise InvalidInput(FieldViolation("role", "must be canary or shadow"))
    found = await stub.ListReleases(pb.ListReleasesRequest(), timeout=TIMEOUT_S)
    before = next((each.traffic.previous for each in found.surfaces if each.surface == surface), None)
    if before is None or not before.version:
        raise NotFound("previous release", surface)
    wanted = pb.DeployReleaseRequest(release=before, role=role, percent=_percent(form))
    return await stub.DeployRelease(wanted, timeout=CHANGE_TIMEOUT_S)


def _traffic(form: Form, percent: float) -> pb.SetTrafficRequest:
    return pb.SetTrafficRequest(
        surface=form.get("surface", ""), release_version=form.get("version", ""), percent=percent
    )


def _percent(form: Form) -> float:
    try:
        percent = float(form.get("percent", ""))
    except ValueError:
        percent = -1.0
    if not 0 <= percent <= _ALL:
        raise InvalidInput(FieldViolation("percent", f"must be 0 to 100, not {form.get('percent', '')!r}"))
    return percent


ROUTES = [
    Route("/releases", _page, methods=["GET"]),
    change("/releases/rollback", _roll_back, keep),
    change("/releases/share", _share),
    change("/releases/promote", _promote, keep),
    change("/releases/try", _try_again),
]
