"""What an event tells: the new state before anything is decided."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import assert_never

from shards.change_admission import cancelled, readmitted, requested, withdrawn
from shards.cluster_events import (
    CancelRequested,
    ChangeRequested,
    CommitFailed,
    Event,
    GenerationHeard,
    LoadDone,
    LoadFailed,
    PlacementCommitted,
    ShardEvent,
    ShardSeen,
    ShardSilent,
    ShardStopped,
    Tick,
    UnloadDone,
)
from shards.cluster_state import BundleFacts, ClusterState, ControllerSettings, LoadFailure, LoadSample
from shards.errors import Unavailable
from shards.intent import Operation
from shards.load_rates import model_rates, sampled, steadied
from shards.operations import pending, refuse
from shards.placement import Placement
from shards.planning import planned_of
from shards.release import ModelVersion
from shards.replica import Replica, ReplicaState
from shards.shard_roster import desired_ids
from shards.shard_view import ShardView

_LONGEST_RETRY_MS = 60_000


def initial_state(
    settings: ControllerSettings,
    shard_ids: tuple[str, ...],
    placement: Placement,
    bundles: tuple[BundleFacts, ...],
    now_ms: int,
) -> ClusterState:
    """Return the state of a controller that starts with this committed placement and has seen no shard.

    `shard_ids` are those that the cluster is started with, which the placement's intent may overrule;
    `bundles` describes what the placement's releases, policies and operations name.
    """
    state = ClusterState(
        settings=settings,
        configured=shard_ids,
        shards={},
        placement=placement,
        draft=placement,
        planned=planned_of(placement),
        bundles={bundle.model: bundle for bundle in bundles},
        rebalanced_ms=now_ms,
    )
    return with_shards(state, placement.endpoints, now_ms)


def with_shards(state: ClusterState, known: Iterable[str], now_ms: int) -> ClusterState:
    """Return the state with a view of every shard that there shall be, and of those known to be."""
    views = dict(state.shards)
    for shard_id in sorted({*desired_ids(state.configured, state.draft.intent), *known} - views.keys()):
        address = state.placement.endpoints.get(shard_id, "")
        views[shard_id] = ShardView(shard_id=shard_id, address=address, silent_since_ms=now_ms)
    return replace(state, shards=views)


def observe(state: ClusterState, event: Event, now_ms: int) -> ClusterState:
    """Return the state with what the event tells noted; nothing counts of a shard that is no more."""
    match event:
        case Tick():
            return state
        case ChangeRequested():
            bundles = {**state.bundles, **{bundle.model: bundle for bundle in event.bundles}}
            operation = Operation(operation_id=event.operation_id, change=event.change, start_ms=now_ms)
            if event.problem:
                return refuse(state, operation, event.problem, now_ms)
            return requested(replace(state, bundles=bundles), operation, now_ms)
        case CancelRequested():
            return cancelled(state, event.operation_id, now_ms)
        case GenerationHeard():
            return replace(state, heard_generation=max(event.generation, state.heard_generation))
        case PlacementCommitted():
            return _observe_placement(state, event.placement, now_ms)
        case CommitFailed():
            error = Unavailable(f"the placement cannot be stored: {event.error}")
            retry_ms = now_ms + state.settings.commit_retry_ms
            return withdrawn(replace(state, sent=None, commit_after_ms=retry_ms), error, now_ms)
        case _:
            return _observe_shard(state, event, now_ms) if event.shard_id in state.shards else state


def _observe_shard(state: ClusterState, event: ShardEvent, now_ms: int) -> ClusterState:
    match event:
        case ShardSeen():
            return _observe_look(state, event, now_ms)
        case ShardSilent():
            view = state.shards[event.shard_id]
            since_ms = now_ms if view.silent_since_ms is None else view.silent_since_ms
            refused_ms = now_ms if event.refused else view.refused_ms
            view = replace(view, silent_since_ms=since_ms, refused=event.refused, refused_ms=refused_ms)
            return with_shard(state, view)
        case ShardStopped():
            return _observe_stop(state, event.shard_id)
        case LoadDone():
            return _observe_load(state, event)
        case LoadFailed():
            return _observe_failure(state, event, now_ms)
        case UnloadDone():
            return replace(state, unloading=state.unloading - {(event.shard_id, event.model)})
    assert_never(event)


def _observe_placement(state: ClusterState, placement: Placement, now_ms: int) -> ClusterState:
    """Go on from what the store holds; what somebody else committed replaces all that we wanted."""
    if placement == state.sent:
        return replace(state, placement=placement, sent=None)
    waiting = pending(state)
    state = replace(
        state,
        placement=placement,
        draft=placement,
        sent=None,
        planned={**state.planned, **planned_of(placement)},
        planned_on=None,
        heard_generation=max(state.heard_generation, state.placement.generation),
    )
    return readmitted(with_shards(state, placement.endpoints, now_ms), waiting, now_ms)


def _observe_stop(state: ClusterState, shard_id: str) -> ClusterState:
    return replace(
        state,
        shards={s: view for s, view in state.shards.items() if s != shard_id},
        samples={s: samples for s, samples in state.samples.items() if s != shard_id},
        loading=frozenset(held for held in state.loading if held[0] != shard_id),
        unloading=frozenset(held for held in state.unloading if held[0] != shard_id),
        told={held: terms for held, terms in state.told.items() if held[0] != shard_id},
        failures={held: failure for held, failure in state.failures.items() if held[0] != shard_id},
    )


def _observe_look(state: ClusterState, event: ShardSeen, now_ms: int) -> ClusterState:
    before = state.shards[event.shard_id]
    view = replace(
        before,
        address=event.address,
        incarnation=event.incarnation,
        pid=event.pid,
        memory_bytes=event.memory_bytes,
        node_id=event.node_id,
        capacity_bytes=event.capacity_bytes,
        gpu_capacity_bytes=event.gpu_capacity_bytes,
        recycle_reason=event.recycle_reason,
        replicas={m: r for m, r in event.replicas.items() if (event.shard_id, m) not in state.unloading},
        silent_since_ms=None,
        refused=False,
    )
    if event.incarnation != before.incarnation:
        told = {held: terms for held, terms in state.told.items() if held[0] != event.shard_id}
        state = replace(state, told=told)
    state = _with_counters(with_shard(state, view), event, now_ms)
    return _measured(state, before.replicas, view.replicas.values())


def _with_counters(state: ClusterState, event: ShardSeen, now_ms: int) -> ClusterState:
    counters = {model: replica.requests for model, replica in event.replicas.items()}
    sample = LoadSample(at_ms=now_ms, incarnation=event.incarnation, requests=counters)
    before = state.samples.get(event.shard_id, ())
    after = sampled(before, sample)
    if after is before:
        return state
    samples = {**state.samples, event.shard_id: after}
    return replace(state, samples=samples, loads=steadied(state.loads, model_rates(samples, now_ms)))


def _measured(
    state: ClusterState, before: Mapping[ModelVersion, Replica], now: Iterable[Replica]
) -> ClusterState:
    """Note what replicas use that is news: of each bundle the most that a replica uses now."""
    news = [
        replica.model
        for replica in now
        if replica.state is ReplicaState.READY and replica != before.get(replica.model)
    ]
    host, gpu = dict(state.measured_bytes), dict(state.measured_gpu_bytes)
    for model in news:
        found = [view.replicas[model] for view in state.shards.values() if model in view.replicas]
        in_memory = [replica for replica in found if replica.state is ReplicaState.READY]
        host[model] = max(replica.memory_bytes for replica in in_memory)
        gpu[model] = max(replica.gpu_memory_bytes for replica in in_memory)
    return replace(state, measured_bytes=host, measured_gpu_bytes=gpu) if news else state


def _observe_load(state: ClusterState, event: LoadDone) -> ClusterState:
    view = state.shards[event.shard_id]
    held = (event.shard_id, event.replica.model)
    before = view.replicas
    view = replace(view, replicas={**before, event.replica.model: event.replica})
    return replace(
        _measured(with_shard(state, view), before, [event.replica]),
        loading=state.loading - {held},
        failures={key: failure for key, failure in state.failures.items() if key != held},
    )


def _observe_failure(state: ClusterState, event: LoadFailed, now_ms: int) -> ClusterState:
    held = (event.shard_id, event.model)
    before = state.failures.get(held)
    attempts = before.attempts + 1 if before else 1
    failure = LoadFailure(
        attempts=attempts,
        retry_ms=now_ms + min(_LONGEST_RETRY_MS, 1000 * 2 ** min(attempts - 1, 10)),
        error=event.error,
        refused=event.refused,
    )
    return replace(state, loading=state.loading - {held}, failures={**state.failures, held: failure})


def with_shard(state: ClusterState, view: ShardView) -> ClusterState:
    """Return the state with one shard's view replaced."""
    return replace(state, shards={**state.shards, view.shard_id: view})
