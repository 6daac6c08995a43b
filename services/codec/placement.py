"""Placements: which shard holds which bundle, and which release answers for which surface."""

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec.release import read_release, release_to_proto
from services.codec.stages import STAGE_TO_PROTO, model_version_to_proto, read_model_version, read_stage
from services.codec.violations import Field, collecting
from shards.placement import Assignment, Placement


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
    )


def _read_assignment(message: pb.Assignment, field: Field) -> Assignment:
    return Assignment(
        model=read_model_version(message.model, field.child("model")),
        stage=read_stage(message.stage, field.child("stage")),
        shard_ids=tuple(message.shard_ids),
    )
