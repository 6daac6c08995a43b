"""What the controller tells of its cluster: shards, models and releases. One way: nobody sends them in."""

from collections.abc import Callable, Mapping, Sequence

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec.changes import policy_to_proto
from services.codec.placement import traffic_to_proto
from services.codec.release import release_to_proto
from services.codec.replica import replica_to_proto
from services.codec.shadow import gate_report_to_proto, shadow_report_to_proto
from services.codec.stages import STAGE_TO_PROTO, model_version_to_proto
from shards.cluster_state import BundleFacts, ClusterState
from shards.load_rates import model_rates, shard_rates
from shards.placement import Placement
from shards.release import ModelVersion
from shards.replica import ReplicaState
from shards.shadow import GateReport, ShadowReport
from shards.shard_view import ShardState, ShardView

_SHARD_STATES: Mapping[ShardState, pb.ShardState.ValueType] = {
    ShardState.STARTING: pb.SHARD_STATE_STARTING,
    ShardState.SERVING: pb.SHARD_STATE_SERVING,
    ShardState.DOWN: pb.SHARD_STATE_DOWN,
    ShardState.DRAINING: pb.SHARD_STATE_DRAINING,
    ShardState.DRAINED: pb.SHARD_STATE_DRAINED,
}


def shards_to_proto(state: ClusterState, now_ms: int) -> list[pb.Shard]:
    """Return the message of every shard, by id."""
    return [_shard_to_proto(state, view, now_ms) for _, view in sorted(state.shards.items())]


def _shard_to_proto(state: ClusterState, view: ShardView, now_ms: int) -> pb.Shard:
    return pb.Shard(
        shard_id=view.shard_id,
        address=view.address,
        state=_SHARD_STATES[state.shard_state(view.shard_id, now_ms)],
        node=view.node,
        capacity_bytes=state.capacity_bytes(view.shard_id),
        memory_bytes=sum(
            replica.memory_bytes
            for replica in view.replicas.values()
            # What is cold or failed tells what it used when it was last loaded.
            if replica.state is ReplicaState.READY
        ),
        replicas=[replica_to_proto(replica) for _, replica in sorted(view.replicas.items())],
        incarnation=view.incarnation,
        pid=view.pid,
        gpu_capacity_bytes=view.gpu_capacity_bytes,
        resident_bytes=view.memory_bytes,
        load=sum(shard_rates(state.samples.get(view.shard_id, ()), now_ms).values()),
        recycle_reason=view.recycle_reason,
    )


def models_to_proto(state: ClusterState, now_ms: int) -> list[pb.Model]:
    """Return the message of every bundle that the controller has met, by name."""
    rates = model_rates(state.samples, now_ms)
    surfaces: dict[ModelVersion, list[str]] = {}
    for surface, release in sorted(state.placement.releases.items()):
        for model in release.models():
            surfaces.setdefault(model, []).append(surface)
    return [
        _model_to_proto(state, bundle, rates.get(model, 0.0), surfaces.get(model, ()))
        for model, bundle in sorted(state.bundles.items())
    ]


def _model_to_proto(
    state: ClusterState, bundle: BundleFacts, load: float, surfaces: Sequence[str]
) -> pb.Model:
    assignment = state.placement.assignments.get(bundle.model)
    policy = state.placement.intent.policies.get(bundle.model)
    return pb.Model(
        model=model_version_to_proto(bundle.model),
        stage=STAGE_TO_PROTO[bundle.stage],
        engine=bundle.engine,
        size_bytes=bundle.size_bytes,
        shard_ids=assignment.shard_ids if assignment else (),
        surfaces=surfaces,
        metrics=dict(bundle.metrics),
        memory_bytes=_memory_bytes(state, bundle.model),
        load=load,
        policy=policy_to_proto(policy) if policy else None,
        replicas=[
            pb.ShardReplica(shard_id=shard_id, replica=replica_to_proto(view.replicas[bundle.model]))
            for shard_id, view in sorted(state.shards.items())
            if bundle.model in view.replicas
        ],
    )


def _memory_bytes(state: ClusterState, model: ModelVersion) -> int:
    """Return what a replica was measured to use, on the host and on a GPU."""
    return state.measured_bytes.get(model, 0) + state.measured_gpu_bytes.get(model, 0)


def releases_to_proto(
    placement: Placement,
    shadow_of: Callable[[str], ShadowReport | None],
    gate_of: Callable[[str], GateReport | None],
) -> pb.ListReleasesResponse:
    """Return the message of what is loaded for each surface, and of what routers told of it."""
    surfaces = sorted(placement.releases.keys() | placement.traffic.keys())
    return pb.ListReleasesResponse(
        surfaces=[
            _surface_to_proto(placement, surface, shadow_of(surface), gate_of(surface))
            for surface in surfaces
        ],
        aliases=dict(placement.aliases),
    )


def _surface_to_proto(
    placement: Placement, surface: str, shadow: ShadowReport | None, gate: GateReport | None
) -> pb.SurfaceReleases:
    live, traffic = placement.releases.get(surface), placement.traffic.get(surface)
    return pb.SurfaceReleases(
        surface=surface,
        live=release_to_proto(live) if live else None,
        traffic=traffic_to_proto(surface, traffic) if traffic else None,
        shadow_report=shadow_report_to_proto(shadow) if shadow else None,
        gate_report=gate_report_to_proto(gate) if gate else None,
    )
