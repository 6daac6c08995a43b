"""Which bundles are to be loaded and unloaded now, for the placement to become what is planned."""

from collections.abc import Iterator
from dataclasses import replace

from shards.cluster_events import LoadModel, UnloadModel
from shards.cluster_state import ClusterState, Held, LoadTerms
from shards.observation import with_shard
from shards.planning import memory_bytes
from shards.release import ModelVersion
from shards.releases import policies
from shards.replica import ReplicaState
from shards.rolling_restart import resting


def load(state: ClusterState, now_ms: int) -> tuple[ClusterState, tuple[LoadModel, ...]]:
    """Ask for missing replicas: one at a time on each shard, so that loading does not starve serving.

    No bundle is loaded twice at once either, so that shards do not compete for its files, and a bundle
    that cannot be served is found out once.
    """
    if state.draft.intent.frozen:
        return state, ()
    busy_shards = {shard_id for shard_id, _ in state.loading | state.unloading}
    busy_shards |= {view.shard_id for _, view in resting(state, now_ms)}
    busy_models = {model for _, model in state.loading} | _loading_on_demand(state)
    pinned = {model for model, policy in policies(state).items() if policy.pinned}
    actions: list[LoadModel] = []
    for model, shard_ids in state.planned.items():
        terms = LoadTerms(on_demand=model in state.on_demand, pinned=model in pinned)
        for shard_id in shard_ids:
            if (
                shard_id in busy_shards
                or model in busy_models
                or not _lacks(state, shard_id, model, terms, now_ms)
            ):
                continue
            busy_shards.add(shard_id)
            busy_models.add(model)
            actions.append(_load_model(state, shard_id, model, terms))
            state = replace(state, told={**state.told, (shard_id, model): terms})
    asked = {(action.shard_id, action.model) for action in actions}
    return replace(state, loading=state.loading | asked), tuple(actions)


def _lacks(state: ClusterState, shard_id: str, model: ModelVersion, terms: LoadTerms, now_ms: int) -> bool:
    """Return whether a shard that answers does not hold the bundle, or holds it on other terms."""
    view = state.shards[shard_id]
    failure = state.failures.get((shard_id, model))
    if view.silent_since_ms is not None or (failure and now_ms < failure.retry_ms):
        return False
    replica = view.replicas.get(model)
    told = state.told.get((shard_id, model), LoadTerms())
    if replica is None:
        return True
    if replica.state is ReplicaState.FAILED:
        # The shard has tried to load what is on demand several times, and tells why; so it stays until an
        # operator asks for it again.
        return failure is not None or not terms.on_demand or told != terms
    return replica.state is not ReplicaState.LOADING and told != terms


def _loading_on_demand(state: ClusterState) -> set[ModelVersion]:
    """Return the bundles that some shard loads because they were asked for."""
    return {
        model
        for view in state.shards.values()
        if view.silent_since_ms is None
        for model, replica in view.replicas.items()
        if replica.state is ReplicaState.LOADING and model in state.on_demand
    }


def _load_model(state: ClusterState, shard_id: str, model: ModelVersion, terms: LoadTerms) -> LoadModel:
    return LoadModel(
        shard_id=shard_id,
        address=state.shards[shard_id].address,
        model=model,
        on_demand=terms.on_demand,
        pinned=terms.pinned,
        memory_bytes=memory_bytes(state, model) if model in state.measured_bytes else 0,
    )


def unload(state: ClusterState, now_ms: int) -> tuple[ClusterState, tuple[UnloadModel, ...]]:
    """Let go what neither the plan nor the committed placement has wanted for a while."""
    unused = {held: state.retired_ms.get(held, now_ms) for held in _unused(state)}
    state = replace(state, retired_ms=unused)
    if state.draft.intent.frozen:
        return state, ()
    actions: list[UnloadModel] = []
    for (shard_id, model), since_ms in unused.items():
        if now_ms - since_ms >= state.settings.unload_after_ms:
            actions.append(_unload_model(state, shard_id, model))
            state = _without_replica(state, shard_id, model)
    return state, tuple(actions)


def _without_replica(state: ClusterState, shard_id: str, model: ModelVersion) -> ClusterState:
    view = state.shards[shard_id]
    view = replace(view, replicas={m: replica for m, replica in view.replicas.items() if m != model})
    told = {held: terms for held, terms in state.told.items() if held != (shard_id, model)}
    return replace(with_shard(state, view), unloading=state.unloading | {(shard_id, model)}, told=told)


def _unused(state: ClusterState) -> Iterator[Held]:
    wanted = {(s, model) for model, shard_ids in state.planned.items() for s in shard_ids}
    wanted |= {(s, model) for model, a in state.placement.assignments.items() for s in a.shard_ids}
    for view in state.shards.values():
        for model, replica in view.replicas.items():
            held = (view.shard_id, model)
            answers = view.silent_since_ms is None and replica.state is not ReplicaState.LOADING
            if answers and held not in wanted and held not in state.loading:
                yield held


def _unload_model(state: ClusterState, shard_id: str, model: ModelVersion) -> UnloadModel:
    assignment = state.placement.assignments.get(model)
    return UnloadModel(
        shard_id=shard_id,
        address=state.shards[shard_id].address,
        model=model,
        owner=assignment.shard_ids[0] if assignment else "",
        generation=state.placement.generation,
    )
