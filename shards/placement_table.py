"""The placement that routers shall see: who is asked for a bundle, and where."""

from collections.abc import Mapping
from dataclasses import replace

from shards.cluster_state import ClusterState
from shards.placement import Assignment, Placement
from shards.release import ModelVersion, Stage
from shards.releases import loaded, policies
from shards.rolling_restart import resting
from shards.shard_roster import desired_ids


def placement_of(state: ClusterState, now_ms: int) -> Placement:
    """Return the placement as it should be now, with the generation of the committed one."""
    rests = frozenset(view.shard_id for _, view in resting(state, now_ms))
    assignments = {}
    for model, (stage, optional) in sorted(_placed(state).items()):
        shard_ids = _holders(state, model, rests, now_ms)
        if optional and not state.planned.get(model):
            shard_ids = ()
        if shard_ids:
            assignments[model] = Assignment(model=model, stage=stage, shard_ids=shard_ids)
    return replace(
        state.draft,
        generation=state.placement.generation,
        endpoints=_endpoints(state, assignments, now_ms),
        assignments=assignments,
    )


def _placed(state: ClusterState) -> dict[ModelVersion, tuple[Stage, bool]]:
    """Return the bundles that routers may ask for, the stage of each and whether it may be missing."""
    found: dict[ModelVersion, tuple[Stage, bool]] = {}
    wanted = policies(state)
    for model, policy in state.draft.intent.policies.items():
        if policy.standalone and model in wanted and model in state.bundles:
            found[model] = (state.bundles[model].stage, False)
    for release, optional in loaded(state.draft):
        for model, stage in release.models().items():
            found[model] = (stage, optional and found.get(model, (stage, True))[1])
    return found


def _holders(state: ClusterState, model: ModelVersion, rests: frozenset[str], now_ms: int) -> tuple[str, ...]:
    """Return the shards that routers shall ask for a bundle; never fewer than one that there was."""
    planned = set(state.planned.get(model, ()))
    assignment = state.placement.assignments.get(model)
    before = assignment.shard_ids if assignment else ()
    serving = {shard_id for shard_id in planned.union(before) if _serves(state, shard_id, model, now_ms)}
    holders = planned if planned and planned <= serving else serving
    return tuple(sorted(holders - rests or serving - rests or serving or before))


def _serves(state: ClusterState, shard_id: str, model: ModelVersion, now_ms: int) -> bool:
    """Return whether routers may ask; a shard not seen yet keeps what it was placed with."""
    if state.serves(shard_id, model, now_ms):
        return True
    if state.lost(shard_id, now_ms) or state.shards[shard_id].incarnation:
        return False
    assignment = state.placement.assignments.get(model)
    return bool(assignment and shard_id in assignment.shard_ids)


def _endpoints(
    state: ClusterState, assignments: Mapping[ModelVersion, Assignment], now_ms: int
) -> dict[str, str]:
    """Return the addresses of the shards that answer or that routers are told to ask."""
    named = {shard_id for assignment in assignments.values() for shard_id in assignment.shard_ids}
    wanted = desired_ids(state.configured, state.draft.intent)
    endpoints = {}
    for shard_id in sorted(named.union(state.shards)):
        view = state.shards.get(shard_id)
        address = (view.address if view else "") or state.placement.endpoints.get(shard_id, "")
        answers = shard_id in wanted and not state.lost(shard_id, now_ms)
        if address and (
            shard_id in named or answers or (view and view.incarnation and not state.lost(shard_id, now_ms))
        ):
            endpoints[shard_id] = address
    return endpoints
