"""Which shards answer for which model, as a placement says: all that a client needs of it. Pure."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from protos.headrace.v1 import cluster_service_pb2 as pb
from protos.headrace.v1 import types_pb2


@dataclass(frozen=True, slots=True)
class Owners:
    """A model's version and the addresses of the shards that serve it."""

    version: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Directory:
    """One placement, for look-ups of models by their names."""

    endpoints: Mapping[str, str] = field(default_factory=dict)
    """Shard id to HOST:PORT."""
    holders: Mapping[tuple[str, str], tuple[str, ...]] = field(default_factory=dict)
    """Addresses by model and version."""
    live: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Versions that live releases pin, by model."""

    def find(self, model: str, version: str) -> Owners | None:
        """Return who serves the version, the live one where it is empty.

        None where nobody does, where no single version is live, and for a model in partitions, whose answers
        a router puts together.
        """
        if not version:
            live = self.live.get(model, frozenset())
            version = next(iter(live)) if len(live) == 1 else ""
        addresses = self.holders.get((model, version), ())
        return Owners(version, addresses) if addresses else None


def directory_of(placement: pb.Placement) -> Directory:
    """Return the directory of a placement as a controller sends it."""
    endpoints = {each.shard_id: each.address for each in placement.endpoints}
    live: defaultdict[str, set[str]] = defaultdict(set)
    for release in placement.releases:
        for model in _models(release):
            live[model.model].add(model.version)
    return Directory(
        endpoints=endpoints,
        holders={
            (each.model.model, each.model.version): tuple(
                endpoints[shard_id] for shard_id in each.shard_ids if shard_id in endpoints
            )
            for each in placement.assignments
        },
        live={model: frozenset(versions) for model, versions in live.items()},
    )


def _models(release: pb.Release) -> Iterator[types_pb2.ModelVersion]:
    yield from (channel.model for channel in release.channels)
    yield from (getattr(release, name).model for name in ("pre_ranker", "ranker") if release.HasField(name))
