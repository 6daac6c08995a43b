"""How a release compared with the live one, as its deployment carries it."""

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec.violations import Field
from shards.release_quality import Measure, ReleaseQuality

_FIGURES = ("live", "candidate", "gain", "error", "tolerated")


def quality_to_proto(quality: ReleaseQuality) -> pb.ReleaseQuality:
    """Return the message of what was measured."""
    return pb.ReleaseQuality(
        live_version=quality.live_version,
        queries=quality.queries,
        measures=[
            pb.QualityMeasure(name=each.name, **{name: getattr(each, name) for name in _FIGURES})
            for each in quality.measures
        ],
        override_reason=quality.override_reason,
    )


def read_quality(message: pb.ReleaseQuality, field: Field) -> ReleaseQuality:
    """Return what was measured; refuses figures that are no numbers."""
    for i, measure in enumerate(message.measures):
        at = field.child("measures").element(i)
        at.child("name").check_set(measure.name)
        for name in _FIGURES:
            at.child(name).check_finite(getattr(measure, name))
    return ReleaseQuality(
        live_version=message.live_version,
        queries=message.queries,
        measures=tuple(
            Measure(name=each.name, **{name: getattr(each, name) for name in _FIGURES})
            for each in message.measures
        ),
        override_reason=message.override_reason,
    )
