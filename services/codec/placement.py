"""Placements: which shard holds which bundle, and which release answers for which surface."""

from typing import Literal

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec.intent import intent_to_proto, read_intent
from services.codec.release import read_release, release_to_proto
from services.codec.stages import STAGE_TO_PROTO, model_version_to_proto, read_model_version, read_stage
from services.codec.violations import Field, collecting
from shards.placement import Assignment, Placement
from shards.release import Release, Traffic


def placement_to_proto(placement: Placement) -> pb.Placement:
    """Return the message of a placement."""
    return pb.Placement(
        generation=placement.generation,
        endpoints=[
            pb.Endpoint(shard_id=shard_id, address=address)
            for shard_id, address in placement.endpoints.items()
        ],
        assignments=[assignment_to_proto(assignment) for assignment in placement.assignments.values()],
        releases=[release_to_proto(release) for release in placement.releases.values()],
        traffic=[traffic_to_proto(surface, traffic) for surface, traffic in placement.traffic.items()],
        aliases=dict(placement.aliases),
        intent=intent_to_proto(placement.intent),
    )


def traffic_to_proto(surface: str, traffic: Traffic) -> pb.Traffic:
    """Return the message of what else of a surface is loaded."""
    return pb.Traffic(
        surface=surface,
        canary=release_to_proto(traffic.canary) if traffic.canary else None,
        canary_percent=traffic.canary_percent,
        shadow=release_to_proto(traffic.shadow) if traffic.shadow else None,
        shadow_percent=traffic.shadow_percent,
        previous=release_to_proto(traffic.previous) if traffic.previous else None,
    )


def assignment_to_proto(assignment: Assignment) -> pb.Assignment:
    """Return the message of one bundle's assignment."""
    return pb.Assignment(
        model=model_version_to_proto(assignment.model),
        stage=STAGE_TO_PROTO[assignment.stage],
        shard_ids=assignment.shard_ids,
    )


def placement_from_proto(message: pb.Placement) -> Placement:
    """Return the placement; raises `InvalidInput` with every field at fault, below "placement"."""
    with collecting("placement") as field:
        return _read_placement(message, field)


def _read_placement(message: pb.Placement, field: Field) -> Placement:
    assignments = [
        _read_assignment(assignment, field.child("assignments").element(i))
        for i, assignment in enumerate(message.assignments)
    ]
    releases = [
        read_release(release, field.child("releases").element(i))
        for i, release in enumerate(message.releases)
    ]
    return Placement(
        generation=message.generation,
        endpoints={endpoint.shard_id: endpoint.address for endpoint in message.endpoints},
        assignments={assignment.model: assignment for assignment in assignments},
        releases={release.surface: release for release in releases},
        traffic={
            traffic.surface: _read_traffic(traffic, field.child("traffic").element(i))
            for i, traffic in enumerate(message.traffic)
        },
        aliases=dict(message.aliases),
        intent=read_intent(message.intent, field.child("intent")),
    )


def _read_traffic(message: pb.Traffic, field: Field) -> Traffic:
    def read(name: Literal["canary", "shadow", "previous"]) -> Release | None:
        if not message.HasField(name):
            return None
        return read_release(getattr(message, name), field.child(name))

    for percent in ("canary_percent", "shadow_percent"):
        field.child(percent).check_finite(getattr(message, percent))
    return Traffic(
        canary=read("canary"),
        canary_percent=message.canary_percent,
        shadow=read("shadow"),
        shadow_percent=message.shadow_percent,
        previous=read("previous"),
    )


def _read_assignment(message: pb.Assignment, field: Field) -> Assignment:
    return Assignment(
        model=read_model_version(message.model, field.child("model")),
        stage=read_stage(message.stage, field.child("stage")),
        shard_ids=tuple(message.shard_ids),
    )
