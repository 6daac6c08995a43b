"""Stages and model versions: the names that every message shares."""

from collections.abc import Mapping

from protos.headrace.v1 import types_pb2 as pb
from services.codec.violations import Field
from shards.release import ModelVersion, Stage

STAGE_TO_PROTO: Mapping[Stage, pb.Stage.ValueType] = {
    Stage.RETRIEVAL: pb.STAGE_RETRIEVAL,
    Stage.PRE_RANKING: pb.STAGE_PRE_RANKING,
    Stage.RANKING: pb.STAGE_RANKING,
    Stage.GATE: pb.STAGE_GATE,
}
"""The wire's number of each stage."""

STAGE_FROM_PROTO: Mapping[pb.Stage.ValueType, Stage] = {
    number: stage for stage, number in STAGE_TO_PROTO.items()
}
"""The stage of each number; `STAGE_UNSPECIFIED` is none of them."""


def read_stage(number: pb.Stage.ValueType, field: Field) -> Stage:
    """Return the stage; refuses a number that names none, and then returns retrieval."""
    stage = STAGE_FROM_PROTO.get(number)
    if stage is None:
        field.refuse("must name a stage")
        return Stage.RETRIEVAL
    return stage


def model_version_to_proto(version: ModelVersion) -> pb.ModelVersion:
    """Return the message of one version of a model."""
    return pb.ModelVersion(model=version.model, version=version.version)


def read_model_version(message: pb.ModelVersion, field: Field) -> ModelVersion:
    """Return the version of the model; refuses an empty name and an empty version."""
    field.child("model").check_set(message.model)
    field.child("version").check_set(message.version)
    return ModelVersion(message.model, message.version)
