"""What an event tells: the new state before anything is decided."""

from dataclasses import replace
from typing import assert_never

from shards.changes import DeployRelease
from shards.cluster_events import (
    DeployRequested,
    Event,
    GenerationHeard,
    LoadDone,
    LoadFailed,
    PlacementCommitted,
    ShardSeen,
    ShardSilent,
    Tick,
    UnloadDone,
)
from shards.cluster_state import (
    BundleFacts,
    ClusterState,
    ControllerSettings,
    LoadFailure,
    ReplicaState,
    ShardView,
)
from shards.intent import Operation
from shards.placement import Placement

_OPERATIONS_KEPT = 100
_LONGEST_RETRY_MS = 60_000


def initial_state(
    settings: ControllerSettings,
    shard_ids: tuple[str, ...],
    placement: Placement,
    bundles: tuple[BundleFacts, ...],
    now_ms: int,
) -> ClusterState:
    """Return the state of a controller that starts with this committed placement and has seen no shard.

    `bundles` describes what the placement's releases pin.
    """
    views = {
        shard_id: ShardView(
            shard_id=shard_id, address=placement.endpoints.get(shard_id, ""), silent_since_ms=now_ms
        )
        for shard_id in shard_ids
    }
    return ClusterState(
        settings=settings,
        shards=views,
        placement=placement,
        planned={model: assignment.shard_ids for model, assignment in placement.assignments.items()},
        bundles={bundle.model: bundle for bundle in bundles},
    )


def observe(state: ClusterState, event: Event, now_ms: int) -> ClusterState:
    """Return the state with what the event tells noted."""
    match event:
        case Tick():
            return state
        case ShardSeen():
            return _observe_shard(state, event)
        case ShardSilent():
            view = state.shards[event.shard_id]
            since_ms = now_ms if view.silent_since_ms is None else view.silent_since_ms
            return with_shard(state, replace(view, silent_since_ms=since_ms, refused=event.refused))
        case DeployRequested():
            return _observe_deploy(state, event, now_ms)
        case LoadDone():
            return _observe_load(state, event)
        case LoadFailed():
            return _observe_failure(state, event, now_ms)
        case UnloadDone():
            return replace(state, unloading=state.unloading - {(event.shard_id, event.model)})
        case GenerationHeard():
            return replace(state, heard_generation=max(event.generation, state.heard_generation))
        case PlacementCommitted():
            return replace(state, placement=event.placement, committing=False)
    assert_never(event)


def _observe_shard(state: ClusterState, event: ShardSeen) -> ClusterState:
    measured = {
        replica.model: replica.memory_bytes
        for replica in event.replicas.values()
        if replica.state is ReplicaState.READY
    }
    view = replace(
        state.shards[event.shard_id],
        address=event.address,
        incarnation=event.incarnation,
        pid=event.pid,
        memory_bytes=event.memory_bytes,
        replicas={m: r for m, r in event.replicas.items() if (event.shard_id, m) not in state.unloading},
        silent_since_ms=None,
        refused=False,
    )
    return replace(with_shard(state, view), measured_bytes={**state.measured_bytes, **measured})


def _observe_deploy(state: ClusterState, event: DeployRequested, now_ms: int) -> ClusterState:
    change = DeployRelease(release=event.release)
    operation = Operation(operation_id=event.operation_id, change=change, start_ms=now_ms)
    operations = [*state.operations.values(), operation]
    pinned = event.release.models()
    return replace(
        state,
        operations={o.operation_id: o for o in operations[-_OPERATIONS_KEPT:]},
        bundles={**state.bundles, **{bundle.model: bundle for bundle in event.bundles}},
        # Whoever deploys may have repaired the bundle since it was refused.
        failures={held: failure for held, failure in state.failures.items() if held[1] not in pinned},
    )


def _observe_load(state: ClusterState, event: LoadDone) -> ClusterState:
    view = state.shards[event.shard_id]
    held = (event.shard_id, event.replica.model)
    view = replace(view, replicas={**view.replicas, event.replica.model: event.replica})
    return replace(
        with_shard(state, view),
        measured_bytes={**state.measured_bytes, event.replica.model: event.replica.memory_bytes},
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
