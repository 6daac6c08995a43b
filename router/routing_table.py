"""Where to send what: the placement, indexed for look-ups by a request."""

from collections import defaultdict
from dataclasses import dataclass

from shards.errors import FieldViolation, InvalidInput, NotFound
from shards.placement import Placement
from shards.release import ModelVersion, Release


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A shard and the HOST:PORT where it is reached."""

    shard_id: str
    address: str


class RoutingTable:
    """One placement; immutable, so a request that holds it sees one generation and one release."""

    __slots__ = ("_live", "_replicas", "endpoints", "placement")

    def __init__(self, placement: Placement) -> None:
        self.placement = placement
        self.endpoints = {
            shard_id: Endpoint(shard_id, address) for shard_id, address in placement.endpoints.items()
        }
        self._replicas = {
            model: tuple(self.endpoints[s] for s in assignment.shard_ids if s in self.endpoints)
            for model, assignment in placement.assignments.items()
        }
        live: defaultdict[str, set[ModelVersion]] = defaultdict(set)
        for release in placement.releases.values():
            for model in release.models():
                live[model.model].add(model)
        self._live = dict(live)

    @property
    def generation(self) -> int:
        """Return the generation of the placement."""
        return self.placement.generation

    def release(self, surface: str) -> Release:
        """Return the live release; raises `NotFound` for an unknown surface."""
        if surface not in self.placement.releases:
            raise NotFound("surface", surface)
        return self.placement.releases[surface]

    def replicas(self, model: ModelVersion) -> tuple[Endpoint, ...]:
        """Return the shards that serve the bundle, none if they are all unknown; raises `NotFound`."""
        if model not in self._replicas:
            raise NotFound("model", str(model))
        return self._replicas[model]

    def live_version(self, model: str) -> ModelVersion:
        """Return the version that the live releases pin.

        Raises `NotFound` when no release uses the model, `InvalidInput` when two releases pin two versions.
        """
        versions = sorted(self._live.get(model, ()))
        if not versions:
            raise NotFound("model", model)
        if len(versions) > 1:
            several = ", ".join(version.version for version in versions)
            raise InvalidInput(FieldViolation("model.version", f"name one; several are live: {several}"))
        return versions[0]


NO_PLACEMENT = RoutingTable(Placement())
"""What a router knows before it knows anything."""
