"""What the controller does next: `step(state, event, now_ms) -> (state, actions)`, pure.

Every step notes what the event tells, then compares what is with what shall be and asks for the
difference; nothing is remembered that can be seen again. What follows from that:

- A release goes live in one commit, when every bundle that it pins is READY (goldens replayed) on every
  shard where the planner wants it. When a shard refuses one of them the deploy fails with the shard's
  reason, and the release that was live stays so.
- Moves are made before they are broken: a bundle's old shards stay in the placement until all of its
  planned ones are READY, and what left the placement is unloaded some seconds later.
- A shard that refuses connections leaves the placement after about a second and returns, each time as a
  new generation, once its bundles are READY again. The planner keeps its place for a minute, so that
  a restart moves nothing. A slow shard gets more time: routers avoid it by themselves.
- The last shard of a bundle never leaves the placement, not even a lost one: it may be the controller
  that is cut off, and routers lose nothing by trying. Shards that a restarted controller has not yet
  seen keep their place for the same reason.
- Generations only rise, as routers ignore older ones: after the loss of a snapshot they go on above
  the newest that a router has heard of.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from shards import deployment
from shards.cluster_events import (
    Action,
    CommitPlacement,
    Event,
    LoadModel,
    StartShard,
    UnloadModel,
)
from shards.cluster_state import ClusterState, Held, ReplicaState, ShardView
from shards.intent import OperationState
from shards.observation import observe, with_shard
from shards.placement_table import placement_of
from shards.planner import ModelFacts, ShardFacts, plan
from shards.release import ModelVersion

_Step = tuple[ClusterState, tuple[Action, ...]]


def step(state: ClusterState, event: Event, now_ms: int) -> _Step:
    """Return the state after the event and what to do about it, in order; `now_ms` never goes back."""
    state = observe(state, event, now_ms)
    actions: list[Action] = []
    for phase in _PHASES:
        state, more = phase(state, now_ms)
        actions += more
    return state, tuple(actions)


def _start_shards(state: ClusterState, now_ms: int) -> _Step:
    """Start what was never started, and restart what Ray believes alive but nobody reaches."""
    actions: list[Action] = []
    for view in state.shards.values():
        if view.started_ms is None:
            actions.append(StartShard(shard_id=view.shard_id, restart=False))
        elif _overdue(state, view, now_ms):
            actions.append(StartShard(shard_id=view.shard_id, restart=True))
        else:
            continue
        state = with_shard(state, replace(view, started_ms=now_ms))
    return state, tuple(actions)


def _overdue(state: ClusterState, view: ShardView, now_ms: int) -> bool:
    if view.silent_since_ms is None or not state.lost(view.shard_id, now_ms):
        return False
    return now_ms - max(view.started_ms or 0, view.silent_since_ms) > state.settings.restart_after_ms


def _give_up(state: ClusterState, now_ms: int) -> _Step:
    """End the deploys that were superseded, refused by a shard, or that took too long."""
    actions: list[Action] = []
    for operation in deployment.running(state):
        end, detail = deployment.reason_to_end(state, operation, now_ms)
        if detail:
            state, finished = deployment.finish(state, operation, end, detail, now_ms)
            actions.append(finished)
    return state, tuple(actions)


def _replan(state: ClusterState, now_ms: int) -> _Step:
    """Plan for the live releases and those being deployed; a deploy without room for a bundle fails."""
    actions: list[Action] = []
    while True:
        state = _with_plan(state, now_ms)
        crowded_out = next(deployment.unplaceable(state), None)
        if crowded_out is None:
            return state, tuple(actions)
        operation, model = crowded_out
        detail = f"no shard can hold {model}: {state.unplaced[model]}"
        state, finished = deployment.finish(state, operation, OperationState.FAILED, detail, now_ms)
        actions.append(finished)


def _with_plan(state: ClusterState, now_ms: int) -> ClusterState:
    shards = [_shard_facts(state, view, now_ms) for view in state.shards.values()]
    answer = plan(now_ms, shards, _models(state, now_ms), {}, state.planned, state.settings.limits)
    return replace(
        state,
        planned=answer.assignments,
        unplaced={unplaced.model: unplaced.reason for unplaced in answer.unplaced},
    )


def _shard_facts(state: ClusterState, view: ShardView, now_ms: int) -> ShardFacts:
    absent = not view.incarnation or state.lost(view.shard_id, now_ms)
    return ShardFacts(
        shard_id=view.shard_id,
        node=view.node,
        capacity_bytes=state.settings.shard_capacity_bytes,
        lost_since_ms=view.silent_since_ms if absent else None,
    )


def _models(state: ClusterState, now_ms: int) -> list[ModelFacts]:
    """Return the facts of every bundle that a release needs; deploys wait until the shards are there."""
    releases = list(state.placement.releases.values())
    if not deployment.awaited(state, now_ms):
        releases += [deployment.release_of(operation) for operation in deployment.running(state)]
    pinned: dict[ModelVersion, set[str]] = {}
    groups: dict[ModelVersion, str] = {}
    for release in releases:
        groups |= release.partition_groups()
        for model in release.models():
            pinned.setdefault(model, set()).add(f"{release.surface}@{release.version}")
    return [
        ModelFacts(
            model=model,
            memory_bytes=_memory_bytes(state, model),
            releases=frozenset(names),
            group=groups.get(model, ""),
        )
        for model, names in pinned.items()
    ]


def _memory_bytes(state: ClusterState, model: ModelVersion) -> int:
    """Return what a replica was measured to use; before the first load, its size on disk."""
    bundle = state.bundles.get(model)
    return state.measured_bytes.get(model, bundle.size_bytes if bundle else 0)


def _load(state: ClusterState, now_ms: int) -> _Step:
    """Ask for missing replicas, one at a time on each shard, so that loading does not starve serving."""
    actions: list[Action] = []
    for model, shard_ids in state.planned.items():
        for shard_id in shard_ids:
            if _may_load(state, shard_id, model, now_ms):
                address = state.shards[shard_id].address
                actions.append(LoadModel(shard_id=shard_id, address=address, model=model))
                state = replace(state, loading=state.loading | {(shard_id, model)})
    return state, tuple(actions)


def _may_load(state: ClusterState, shard_id: str, model: ModelVersion, now_ms: int) -> bool:
    view = state.shards[shard_id]
    replica = view.replicas.get(model)
    failure = state.failures.get((shard_id, model))
    return (
        view.silent_since_ms is None
        and (replica is None or replica.state is ReplicaState.FAILED)
        and all(busy != shard_id for busy, _ in state.loading | state.unloading)
        and (failure is None or now_ms >= failure.retry_ms)
    )


def _commit(state: ClusterState, now_ms: int) -> _Step:
    """Commit the placement where it differs; where it does not, deploys that it carries are done."""
    if state.committing:
        return state, ()
    wanted = placement_of(state, now_ms)
    generation = state.placement.generation
    if wanted != state.placement or generation < state.heard_generation:
        wanted = replace(wanted, generation=max(generation, state.heard_generation) + 1)
        commit = CommitPlacement(expected_generation=generation, placement=wanted)
        return replace(state, committing=True), (commit,)
    actions: list[Action] = []
    for operation in deployment.running(state):
        if deployment.complete(state, deployment.release_of(operation), now_ms):
            detail = deployment.success(state, deployment.release_of(operation))
            state, finished = deployment.finish(state, operation, OperationState.SUCCEEDED, detail, now_ms)
            actions.append(finished)
    return state, tuple(actions)


def _unload(state: ClusterState, now_ms: int) -> _Step:
    """Let go what neither the plan nor the committed placement has wanted for a while."""
    unused = {held: state.retired_ms.get(held, now_ms) for held in _unused(state)}
    actions: list[Action] = []
    for (shard_id, model), since_ms in unused.items():
        if now_ms - since_ms >= state.settings.unload_after_ms:
            actions.append(_unload_model(state, shard_id, model))
            state = _without_replica(state, shard_id, model)
    return replace(state, retired_ms=unused), tuple(actions)


def _without_replica(state: ClusterState, shard_id: str, model: ModelVersion) -> ClusterState:
    view = state.shards[shard_id]
    view = replace(view, replicas={m: replica for m, replica in view.replicas.items() if m != model})
    return replace(with_shard(state, view), unloading=state.unloading | {(shard_id, model)})


def _unused(state: ClusterState) -> Iterator[Held]:
    for view in state.shards.values():
        for model, replica in view.replicas.items():
            assignment = state.placement.assignments.get(model)
            wanted = {*state.planned.get(model, ()), *(assignment.shard_ids if assignment else ())}
            answers = view.silent_since_ms is None and replica.state is not ReplicaState.LOADING
            held = (view.shard_id, model)
            if answers and view.shard_id not in wanted and held not in state.loading:
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


def _report(state: ClusterState, now_ms: int) -> _Step:
    return deployment.report(state, now_ms), ()


_PHASES: tuple[Callable[[ClusterState, int], _Step], ...] = (
    _start_shards,
    _give_up,
    _replan,
    _load,
    _report,
    _commit,
    _unload,
)
