"""Whether a release may be deployed, rolled back, given traffic or named, as the cluster is now."""

from dataclasses import replace
from typing import assert_never

from shards.changes import Change, DeployRelease, RollbackRelease, SetAlias, SetTraffic
from shards.cluster_state import ClusterState
from shards.errors import Conflict, FieldViolation, InvalidInput, NotFound, Refused
from shards.operations import running
from shards.release import ReleaseRole, Traffic
from shards.releases import traffic_of, with_traffic

ReleaseRequest = DeployRelease | RollbackRelease | SetTraffic | SetAlias
"""What operators ask of a surface."""

_ROLES = ("live", "canary", "previous", "shadow")


def check(state: ClusterState, change: ReleaseRequest) -> None:
    """Raise what is wrong with a change of a surface."""
    match change:
        case DeployRelease():
            _check_deploy(state, change)
        case RollbackRelease():
            _check_rollback(state, change)
        case SetTraffic():
            _check_traffic(state, change)
        case SetAlias():
            _check_alias(state, change)
        case _:
            assert_never(change)


def _check_deploy(state: ClusterState, change: DeployRelease) -> None:
    """Refuse a surface that is an alias, and a canary or shadow with nothing to stand beside."""
    release = change.release
    if release.surface in state.draft.aliases:
        target = state.draft.aliases[release.surface]
        raise InvalidInput(FieldViolation("release.surface", f"is an alias of {target}; remove that first"))
    _check_undisturbed(state, release.surface, DeployRelease)
    live = state.draft.releases.get(release.surface)
    if change.role is ReleaseRole.LIVE:
        return
    if live is None:
        raise Refused(f"{release.surface} has no live release to compare a {change.role.value} with")
    if live.version == release.version:
        raise InvalidInput(FieldViolation("release.version", f"{release.version} is live already"))


def _check_rollback(state: ClusterState, change: RollbackRelease) -> None:
    """Refuse where there is nothing to go back to."""
    _check_surface(state, change.surface)
    _check_undisturbed(state, change.surface)
    if traffic_of(state.draft, change.surface).previous is None:
        live = state.draft.releases[change.surface].version
        raise Refused(
            f"{change.surface} has no release before {live!r} to go back to", reason="NO_PREVIOUS_RELEASE"
        )


def _check_traffic(state: ClusterState, change: SetTraffic) -> None:
    """Refuse a release that is neither canary nor shadow."""
    _check_surface(state, change.surface)
    _check_undisturbed(state, change.surface)
    traffic = traffic_of(state.draft, change.surface)
    if change.version not in {r.version for r in (traffic.canary, traffic.shadow) if r}:
        raise NotFound("canary or shadow release", f"{change.surface}@{change.version}")


def is_share(state: ClusterState, change: Change) -> bool:
    """Return whether a change only sets or ends a share, as all do but those that promote a canary."""
    if not isinstance(change, SetTraffic):
        return False
    canary = traffic_of(state.draft, change.surface).canary
    return not (canary and canary.version == change.version and change.percent >= 100)


def with_share(state: ClusterState, change: SetTraffic) -> ClusterState:
    """Return the state with the share of a canary or shadow set, or ended by 0."""
    traffic = traffic_of(state.draft, change.surface)
    if traffic.canary and traffic.canary.version == change.version:
        traffic = replace(traffic, canary_percent=change.percent)
        traffic = traffic if change.percent else replace(traffic, canary=None)
    else:
        traffic = replace(traffic, shadow_percent=change.percent)
        traffic = traffic if change.percent else replace(traffic, shadow=None)
    return replace(state, draft=with_traffic(state.draft, change.surface, traffic))


def _check_alias(state: ClusterState, change: SetAlias) -> None:
    """Refuse an alias that hides a surface, and one of what does not exist."""
    if change.alias in state.draft.releases:
        raise InvalidInput(FieldViolation("alias", f"hides the surface {change.alias!r}"))
    if not change.target:
        if change.alias not in state.draft.aliases:
            raise NotFound("alias", change.alias)
        return
    surface, _, wanted = change.target.partition("@")
    _check_surface(state, surface)
    traffic = traffic_of(state.draft, surface)
    versions = {r.version for r in (state.draft.releases[surface], *traffic.releases())}
    if "@" in change.target and wanted not in versions | _roles(traffic):
        raise NotFound("release", change.target)


def _roles(traffic: Traffic) -> set[str]:
    return {"live", *(role for role in _ROLES[1:] if getattr(traffic, role))}


def _check_surface(state: ClusterState, surface: str) -> None:
    if surface not in state.draft.releases:
        raise NotFound("surface", surface)


def _check_undisturbed(state: ClusterState, surface: str, *allowed: type[Change]) -> None:
    """Refuse a change of a surface while another one, which a newer does not replace, is under way."""
    for operation in running(state):
        change = operation.change
        name = change.release.surface if isinstance(change, DeployRelease) else getattr(change, "surface", "")
        if name == surface and not isinstance(change, allowed):
            raise Conflict(f"operation {operation.operation_id} ({operation.kind}) is changing {surface}")
