"""What operators ask for: each change from and to the request of its method."""

from collections.abc import Callable, Mapping
from typing import Any, assert_never

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec.release import read_release, release_to_proto
from services.codec.release_quality import quality_to_proto, read_quality
from services.codec.stages import model_version_to_proto, read_model_version
from services.codec.violations import Field, collecting
from shards.changes import (
    ApplyPlan,
    Change,
    DeployRelease,
    DrainShard,
    DropModel,
    FreezeCluster,
    HoldModel,
    ModelPolicy,
    RestartShards,
    RollbackRelease,
    ScaleShards,
    SetAlias,
    SetTraffic,
    UndrainShard,
)
from shards.planner import PlannedMove
from shards.release import ReleaseRole

ROLES: Mapping[pb.ReleaseRole.ValueType, ReleaseRole] = {
    pb.RELEASE_ROLE_UNSPECIFIED: ReleaseRole.LIVE,
    pb.RELEASE_ROLE_LIVE: ReleaseRole.LIVE,
    pb.RELEASE_ROLE_CANARY: ReleaseRole.CANARY,
    pb.RELEASE_ROLE_SHADOW: ReleaseRole.SHADOW,
}
"""The role of each number."""

ROLES_TO_PROTO: Mapping[ReleaseRole, pb.ReleaseRole.ValueType] = {
    ReleaseRole.LIVE: pb.RELEASE_ROLE_LIVE,
    ReleaseRole.CANARY: pb.RELEASE_ROLE_CANARY,
    ReleaseRole.SHADOW: pb.RELEASE_ROLE_SHADOW,
}
"""The number of each role."""

MOST_SHARDS = 10_000
"""More than this is taken for a mistake."""


def change_to_proto(change: Change) -> dict[str, Any]:
    """Return the field of `pb.Operation.change` that holds the change, and its message."""
    match change:
        case DeployRelease():
            role = ROLES_TO_PROTO[change.role]
            release = release_to_proto(change.release)
            deploy = pb.DeployReleaseRequest(release=release, role=role, percent=change.percent)
            return {"deploy_release": deploy}
        case RollbackRelease():
            return {"rollback_release": pb.RollbackReleaseRequest(surface=change.surface)}
        case SetTraffic():
            traffic = pb.SetTrafficRequest(
                surface=change.surface,
                release_version=change.version,
                percent=change.percent,
                quality=quality_to_proto(change.quality) if change.quality else None,
            )
            return {"set_traffic": traffic}
        case SetAlias():
            return {"set_alias": pb.SetAliasRequest(alias=change.alias, target=change.target)}
        case HoldModel():
            return {"hold_model": pb.HoldModelRequest(policy=policy_to_proto(change.policy))}
        case DropModel():
            return {"drop_model": pb.DropModelRequest(model=model_version_to_proto(change.model))}
        case FreezeCluster():
            return {"freeze_cluster": pb.FreezeClusterRequest(frozen=change.frozen)}
        case _:
            return _shard_change_to_proto(change)


def _shard_change_to_proto(
    change: ApplyPlan | DrainShard | UndrainShard | ScaleShards | RestartShards,
) -> dict[str, Any]:
    match change:
        case ApplyPlan():
            plan = pb.Plan(generation=change.generation, moves=[move_to_proto(m) for m in change.moves])
            return {"apply_plan": pb.ApplyPlanRequest(plan=plan)}
        case DrainShard():
            return {"drain_shard": pb.DrainShardRequest(shard_id=change.shard_id)}
        case UndrainShard():
            return {"undrain_shard": pb.UndrainShardRequest(shard_id=change.shard_id)}
        case ScaleShards():
            scale = pb.ScaleShardsRequest(shards=change.shards, gpu_fraction=change.gpu_fraction)
            return {"scale_shards": scale}
        case RestartShards():
            restart = pb.RestartShardsRequest(
                shard_ids=change.shard_ids, incarnations=dict(change.incarnations)
            )
            return {"restart_shards": restart}
    assert_never(change)


def move_to_proto(move: PlannedMove) -> pb.Move:
    """Return the message of a move."""
    return pb.Move(
        model=model_version_to_proto(move.model),
        from_shard_id=move.from_shard,
        to_shard_id=move.to_shard,
        memory_bytes=move.memory_bytes,
        reason=move.reason,
    )


def policy_to_proto(policy: ModelPolicy) -> pb.ModelPolicy:
    """Return the message of how a bundle is held."""
    return pb.ModelPolicy(
        model=model_version_to_proto(policy.model),
        min_replicas=policy.min_replicas or 0,
        max_replicas=policy.max_replicas or 0,
        pinned=policy.pinned,
        on_demand=policy.on_demand,
        standalone=policy.standalone,
    )


def change_from_proto(request: object) -> Change:
    """Return what a request of `ClusterService` asks for.

    Raises `InvalidInput` with every field at fault, and KeyError for a message that asks for no change.
    """
    with collecting() as field:
        return read_change(request, field)


def read_change(request: object, field: Field) -> Change:
    """Return what a request asks for; refuses what makes no sense of any cluster."""
    return _READERS[type(request)](request, field)


def _read_deploy(message: pb.DeployReleaseRequest, field: Field) -> DeployRelease:
    role = ROLES.get(message.role)
    field.child("role").check(role is not None, "must name a role")
    percent = 100.0
    if role is not ReleaseRole.LIVE:
        percent = message.percent
        below = role is ReleaseRole.CANARY
        _check_percent(percent, field.child("percent"), least_is_open=True, most_is_open=below)
    release = read_release(message.release, field.child("release"))
    return DeployRelease(release=release, role=role or ReleaseRole.LIVE, percent=percent)


def _check_percent(
    percent: float, field: Field, *, least_is_open: bool = False, most_is_open: bool = False
) -> None:
    if field.check_finite(percent):
        field.check(percent > 0 if least_is_open else percent >= 0, "must be above 0")
        field.check(percent < 100 if most_is_open else percent <= 100, "must be below 100")


def _read_rollback(message: pb.RollbackReleaseRequest, field: Field) -> RollbackRelease:
    field.child("surface").check_set(message.surface)
    return RollbackRelease(surface=message.surface)


def _read_traffic(message: pb.SetTrafficRequest, field: Field) -> SetTraffic:
    field.child("surface").check_set(message.surface)
    field.child("release_version").check_set(message.release_version)
    _check_percent(message.percent, field.child("percent"))
    quality = message.quality if message.HasField("quality") else None
    return SetTraffic(
        surface=message.surface,
        version=message.release_version,
        percent=message.percent,
        quality=quality and read_quality(quality, field.child("quality")),
    )


def _read_alias(message: pb.SetAliasRequest, field: Field) -> SetAlias:
    field.child("alias").check_set(message.alias)
    field.child("alias").check("@" not in message.alias, "must not hold '@'")
    return SetAlias(alias=message.alias, target=message.target)


def _read_apply(message: pb.ApplyPlanRequest, field: Field) -> ApplyPlan:
    moves = field.child("plan").child("moves")
    moves.check(len(message.plan.moves) > 0, "must hold a move")
    return ApplyPlan(
        generation=message.plan.generation,
        moves=tuple(read_move(move, moves.element(i)) for i, move in enumerate(message.plan.moves)),
    )


def read_move(message: pb.Move, field: Field) -> PlannedMove:
    """Return the move; refuses one from nowhere to nowhere, or to where it is."""
    shards = {message.from_shard_id, message.to_shard_id}
    field.child("to_shard_id").check(len(shards) == 2, "must differ from from_shard_id")
    return PlannedMove(
        model=read_model_version(message.model, field.child("model")),
        from_shard=message.from_shard_id,
        to_shard=message.to_shard_id,
        memory_bytes=message.memory_bytes,
        reason=message.reason or "an operator asked for it",
    )


def _read_drain(message: pb.DrainShardRequest, field: Field) -> DrainShard:
    field.child("shard_id").check_set(message.shard_id)
    return DrainShard(shard_id=message.shard_id)


def _read_undrain(message: pb.UndrainShardRequest, field: Field) -> UndrainShard:
    field.child("shard_id").check_set(message.shard_id)
    return UndrainShard(shard_id=message.shard_id)


def _read_scale(message: pb.ScaleShardsRequest, field: Field) -> ScaleShards:
    field.child("shards").check_between(message.shards, 1, MOST_SHARDS)
    fraction = message.gpu_fraction if message.HasField("gpu_fraction") else None
    if fraction is not None:
        field.child("gpu_fraction").check(0 < fraction <= 1, f"must lie in (0, 1], not {fraction}")
    return ScaleShards(shards=message.shards, gpu_fraction=fraction)


def _read_restart(message: pb.RestartShardsRequest, field: Field) -> RestartShards:
    repeats = len(set(message.shard_ids)) != len(message.shard_ids)
    field.child("shard_ids").check(not repeats, "must not name a shard twice")
    return RestartShards(shard_ids=tuple(message.shard_ids), incarnations=dict(message.incarnations))


def _read_hold(message: pb.HoldModelRequest, field: Field) -> HoldModel:
    return HoldModel(policy=read_policy(message.policy, field.child("policy")))


def read_policy(message: pb.ModelPolicy, field: Field) -> ModelPolicy:
    """Return how a bundle is held; refuses what contradicts itself."""
    least, most = message.min_replicas, message.max_replicas
    field.child("min_replicas").check_between(least, 0, MOST_SHARDS)
    field.child("max_replicas").check_between(most, 0, MOST_SHARDS)
    field.child("max_replicas").check(not most or least <= most, "must not be below min_replicas")
    return ModelPolicy(
        model=read_model_version(message.model, field.child("model")),
        min_replicas=least or None,
        max_replicas=most or None,
        pinned=message.pinned,
        on_demand=message.on_demand,
        standalone=message.standalone,
    )


def _read_drop(message: pb.DropModelRequest, field: Field) -> DropModel:
    return DropModel(model=read_model_version(message.model, field.child("model")))


def _read_freeze(message: pb.FreezeClusterRequest, _: Field) -> FreezeCluster:
    return FreezeCluster(frozen=message.frozen)


_READERS: Mapping[type, Callable[[Any, Field], Change]] = {
    pb.DeployReleaseRequest: _read_deploy,
    pb.RollbackReleaseRequest: _read_rollback,
    pb.SetTrafficRequest: _read_traffic,
    pb.SetAliasRequest: _read_alias,
    pb.ApplyPlanRequest: _read_apply,
    pb.DrainShardRequest: _read_drain,
    pb.UndrainShardRequest: _read_undrain,
    pb.ScaleShardsRequest: _read_scale,
    pb.RestartShardsRequest: _read_restart,
    pb.HoldModelRequest: _read_hold,
    pb.DropModelRequest: _read_drop,
    pb.FreezeClusterRequest: _read_freeze,
}
