"""The placement that routers shall see: who is asked for a bundle, and where."""

from collections.abc import Mapping
from dataclasses import replace

from shards.cluster_state import ClusterState
from shards.deployment import complete, release_of, running
from shards.placement import Assignment, Placement
from shards.release import ModelVersion


def placement_of(state: ClusterState, now_ms: int) -> Placement:
    """Return the placement as it should be now, with the generation of the committed one."""
    releases = dict(state.placement.releases)
    for operation in running(state):
        if complete(state, release_of(operation), now_ms):
            releases[release_of(operation).surface] = release_of(operation)
    stages = {model: stage for release in releases.values() for model, stage in release.models().items()}
    assignments = {
        model: Assignment(model=model, stage=stage, shard_ids=_holders(state, model, now_ms))
        for model, stage in sorted(stages.items())
    }
    return replace(
        state.placement,
        endpoints=_endpoints(state, assignments, now_ms),
        assignments=assignments,
        releases=releases,
    )


def _holders(state: ClusterState, model: ModelVersion, now_ms: int) -> tuple[str, ...]:
    """Return the shards that routers shall ask for a bundle; never fewer than one that there was."""
    planned = set(state.planned.get(model, ()))
    assignment = state.placement.assignments.get(model)
    before = assignment.shard_ids if assignment else ()
    serving = {shard_id for shard_id in planned.union(before) if _serves(state, shard_id, model, now_ms)}
    holders = planned if planned and planned <= serving else serving
    return tuple(sorted(holders or before))


def _serves(state: ClusterState, shard_id: str, model: ModelVersion, now_ms: int) -> bool:
    if state.lost(shard_id, now_ms):
        return False
    view = state.shards[shard_id]
    return view.ready(model) or not view.incarnation


def _endpoints(
    state: ClusterState, assignments: Mapping[ModelVersion, Assignment], now_ms: int
) -> dict[str, str]:
    """Return the addresses of the shards that answer or that routers are told to ask."""
    named = {shard_id for assignment in assignments.values() for shard_id in assignment.shard_ids}
    endpoints = {}
    for shard_id in sorted(named.union(state.shards)):
        view = state.shards.get(shard_id)
        address = (view.address if view else "") or state.placement.endpoints.get(shard_id, "")
        if address and (shard_id in named or not state.lost(shard_id, now_ms)):
            endpoints[shard_id] = address
    return endpoints
