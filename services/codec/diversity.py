"""How a release puts a page in another order."""

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec.violations import Field
from shards.diversity import AttributeQuota, Diversity

_DEFAULT_WITHIN = 10


def diversity_to_proto(diversity: Diversity) -> pb.Diversity:
    """Return the message of a release's diversity."""
    return pb.Diversity(
        relevance=diversity.relevance,
        attributes=diversity.attributes,
        quotas=map(_quota_to_proto, diversity.quotas),
        candidates=diversity.candidates,
    )


def _quota_to_proto(quota: AttributeQuota) -> pb.AttributeQuota:
    return pb.AttributeQuota(
        attribute=quota.attribute, at_most=quota.at_most, within=quota.within, each=quota.each
    )


def read_diversity(message: pb.Diversity, field: Field) -> Diversity:
    """Return the diversity; refuses each setting that makes no sense."""
    default = Diversity()
    diversity = Diversity(
        relevance=message.relevance if message.HasField("relevance") else default.relevance,
        attributes=tuple(message.attributes),
        quotas=tuple(map(_read_quota, message.quotas)),
        candidates=message.candidates or default.candidates,
    )
    for path, problem in diversity.problems():
        field.child(path).refuse(problem)
    return diversity


def _read_quota(message: pb.AttributeQuota) -> AttributeQuota:
    return AttributeQuota(
        attribute=message.attribute,
        at_most=message.at_most,
        within=message.within or _DEFAULT_WITHIN,
        each=message.each,
    )
