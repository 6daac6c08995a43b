"""The releases of each surface: which are wanted, whether they answer, and how one takes another's place."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from shards.changes import DeployRelease, DropModel, HoldModel, ModelPolicy, RollbackRelease, SetTraffic
from shards.cluster_state import ClusterState
from shards.operations import running
from shards.placement import Placement
from shards.release import ModelVersion, Release, ReleaseRole, Traffic

ReleaseChange = DeployRelease | RollbackRelease | SetTraffic
"""What loads a release and then lets it answer."""


def traffic_of(placement: Placement, surface: str) -> Traffic:
    """Return what else of a surface is loaded."""
    return placement.traffic.get(surface, Traffic())


def brought(placement: Placement, change: ReleaseChange) -> Release | None:
    """Return the release that a change lets answer; None when there is no such release any more."""
    match change:
        case DeployRelease():
            return change.release
        case RollbackRelease():
            return traffic_of(placement, change.surface).previous
        case SetTraffic():
            canary = traffic_of(placement, change.surface).canary
            return replace(canary, quality=change.quality) if canary and change.quality else canary


def brings_live(change: ReleaseChange) -> bool:
    """Return whether a change has another release answer for all, but for one that goes back."""
    match change:
        case DeployRelease():
            return change.role is ReleaseRole.LIVE
        case SetTraffic():
            return change.percent >= 100
        case RollbackRelease():
            return False


def arriving(state: ClusterState) -> list[Release]:
    """Return the releases that running operations bring."""
    changes = (operation.change for operation in running(state))
    found = (brought(state.draft, change) for change in changes if isinstance(change, ReleaseChange))
    return [release for release in found if release]


def loaded(placement: Placement) -> Iterator[tuple[Release, bool]]:
    """Yield every release that is to be loaded, and whether it may be missing when memory is short."""
    for release in placement.releases.values():
        yield release, False
    for traffic in placement.traffic.values():
        for release in traffic.releases():
            yield release, release == traffic.previous


def bundles_named(placement: Placement) -> list[ModelVersion]:
    """Return every bundle that a committed placement names: placed, loaded, held or on its way."""
    found = dict.fromkeys(placement.assignments)
    for release, _ in loaded(placement):
        found |= dict.fromkeys(release.models())
    found |= dict.fromkeys(placement.intent.policies)
    for operation in placement.intent.operations:
        change = operation.change
        if operation.running and isinstance(change, DeployRelease):
            found |= dict.fromkeys(change.release.models())
        if operation.running and isinstance(change, HoldModel):
            found[change.policy.model] = None
    return list(found)


def policies(state: ClusterState) -> Mapping[ModelVersion, ModelPolicy]:
    """Return how single bundles are held, those included whose operation has not ended."""
    found = dict(state.draft.intent.policies)
    for operation in running(state):
        if isinstance(operation.change, HoldModel):
            found[operation.change.policy.model] = operation.change.policy
        if isinstance(operation.change, DropModel):
            found.pop(operation.change.model, None)
    return found


def answers(state: ClusterState, release: Release, now_ms: int) -> bool:
    """Return whether routers are told of a serving replica of every bundle, so that a flip loses nothing."""
    return all(
        any(state.serves(shard_id, model, now_ms) for shard_id in assignment.shard_ids)
        if (assignment := state.placement.assignments.get(model))
        else False
        for model in release.models()
    )


def complete(state: ClusterState, models: Iterable[ModelVersion], now_ms: int) -> bool:
    """Return whether every bundle answers on every shard where it is planned."""
    return all(
        bool(state.planned.get(model))
        and all(state.serves(shard_id, model, now_ms) for shard_id in state.planned[model])
        for model in models
    )


def flipped(placement: Placement, change: ReleaseChange) -> Placement:
    """Return the placement in which the release that a change brings answers."""
    release = brought(placement, change)
    assert release, f"{change} brings nothing"
    if isinstance(change, DeployRelease) and change.role is not ReleaseRole.LIVE:
        traffic = traffic_of(placement, release.surface)
        if change.role is ReleaseRole.CANARY:
            traffic = replace(traffic, canary=release, canary_percent=change.percent)
        else:
            traffic = replace(traffic, shadow=release, shadow_percent=change.percent)
        return with_traffic(placement, release.surface, traffic)
    return _live(placement, release)


def _live(placement: Placement, release: Release) -> Placement:
    """Return the placement with a release live, and the one that was live kept for a rollback."""
    before = placement.releases.get(release.surface)
    traffic = traffic_of(placement, release.surface)
    if before and before.version != release.version:
        traffic = replace(traffic, previous=before)
    if traffic.canary and traffic.canary.version == release.version:
        traffic = replace(traffic, canary=None, canary_percent=0.0)
    if traffic.shadow and traffic.shadow.version == release.version:
        traffic = replace(traffic, shadow=None, shadow_percent=0.0)
    releases = {**placement.releases, release.surface: release}
    return with_traffic(replace(placement, releases=releases), release.surface, traffic)


def with_traffic(placement: Placement, surface: str, traffic: Traffic) -> Placement:
    """Return the placement with the traffic of a surface replaced."""
    others = {name: other for name, other in placement.traffic.items() if name != surface}
    return replace(placement, traffic={**others, surface: traffic} if traffic.releases() else others)
