"""Where to send what: the placement, indexed for look-ups by a request."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from router.gate_models import NO_GATES
from router.traffic import ReleaseNames
from shards.errors import FieldViolation, InvalidInput, NotFound
from shards.gate_model import GateModel
from shards.placement import Placement
from shards.release import ModelVersion, Release


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A shard and the HOST:PORT where it is reached."""

    shard_id: str
    address: str


class RoutingTable:
    """One placement; immutable, so a request that holds it sees one generation and one release."""

    __slots__ = (
        "_live",
        "_partitions",
        "_placed",
        "_releases",
        "_replicas",
        "_shared",
        "_together",
        "endpoints",
        "gates",
        "placement",
    )

    def __init__(self, placement: Placement, gates: Mapping[ModelVersion, GateModel] = NO_GATES) -> None:
        self.placement = placement
        self.gates = gates
        """The gate models of its releases, without those that could not be read."""
        self.endpoints = {
            shard_id: Endpoint(shard_id, address) for shard_id, address in placement.endpoints.items()
        }
        self._replicas = {
            model: tuple(self.endpoints[s] for s in assignment.shard_ids if s in self.endpoints)
            for model, assignment in placement.assignments.items()
        }
        self._shared: dict[tuple[ModelVersion, ...], tuple[Endpoint, ...]] = {}
        """Looked up once for each set of models that searches go through together; there are few."""
        self._together: dict[tuple[ModelVersion, ...], bool] = {}
        live: defaultdict[str, set[ModelVersion]] = defaultdict(set)
        for release in placement.releases.values():
            for model in (*release.models(), *_partitioned(release)):
                live[model.model].add(model)
        self._live = dict(live)
        self._partitions = {
            model: bundles
            for release in _loaded(placement)
            for model, bundles in _partitioned(release).items()
        }
        placed: defaultdict[str, set[ModelVersion]] = defaultdict(set)
        for model in placement.assignments:
            placed[model.model].add(model)
        self._placed = dict(placed)
        self._releases = ReleaseNames(placement)

    @property
    def generation(self) -> int:
        """Return the generation of the placement."""
        return self.placement.generation

    def release(self, name: str, user_id: str = "") -> Release:
        """Return the release that answers this user's search; raises `NotFound` with the name at fault.

        The name is a surface or an alias, alone or with "@live", "@canary", "@previous", "@shadow" or a
        version behind it.
        """
        return self._releases.find(name, user_id)

    def pins(self, name: str) -> bool:
        """Return whether a name that `release` knows asks for one release, so that no share decides."""
        return self._releases.pins(name)

    def shadow(self, answered: Release, request_id: str) -> Release | None:
        """Return the release that shall see the search too, None for most; its answer is only compared."""
        return self._releases.shadow(answered, request_id)

    def replicas(self, *models: ModelVersion) -> tuple[Endpoint, ...]:
        """Return the shards that serve all the models, none if they are unknown.

        Raises `NotFound` for a model that is not placed.
        """
        if len(models) == 1:
            return self._replicas_of(models[0])
        if models not in self._shared:
            holders = [self._replicas_of(model) for model in models]
            self._shared[models] = tuple(s for s in holders[0] if all(s in others for others in holders))
        return self._shared[models]

    def together(self, models: tuple[ModelVersion, ...]) -> bool:
        """Return whether as many shards hold all the models as hold any of them.

        Where fewer do, going to those alone would give up what the other replicas are for. Raises `NotFound`.
        """
        if models not in self._together:
            shards = self.replicas(*models)
            most = max(len(self._replicas[model]) for model in models)
            self._together[models] = bool(shards) and len(shards) >= most
        return self._together[models]

    def _replicas_of(self, model: ModelVersion) -> tuple[Endpoint, ...]:
        if model not in self._replicas:
            raise NotFound("model", str(model))
        return self._replicas[model]

    def partitions(self, model: ModelVersion) -> tuple[ModelVersion, ...]:
        """Return the bundles that hold the model's catalogue between them, none where one holds all of it."""
        return () if model in self._replicas else self._partitions.get(model, ())

    def live_version(self, model: str) -> ModelVersion:
        """Return the version that the live releases pin.

        Raises `NotFound` when the model is not placed, and `InvalidInput` when there is no such version or
        several: a model of a canary, a shadow or the release before is asked for by its version.
        """
        versions: Collection[ModelVersion] = self._live.get(model, ())
        if len(versions) == 1:
            return next(iter(versions))
        if versions:
            raise _name_one(f"several are live: {_listed(versions)}")
        if model not in self._placed:
            raise NotFound("model", model)
        raise _name_one(f"no live release uses it, loaded: {_listed(self._placed[model])}")


def _loaded(placement: Placement) -> Iterator[Release]:
    """Yield the releases of every surface; live ones last, as they count for most."""
    for traffic in placement.traffic.values():
        yield from traffic.releases()
    yield from placement.releases.values()


def _partitioned(release: Release) -> dict[ModelVersion, tuple[ModelVersion, ...]]:
    return {channel.model: channel.bundles() for channel in release.channels if channel.partitions > 1}


def _name_one(because: str) -> InvalidInput:
    return InvalidInput(FieldViolation("model.version", f"name one; {because}"))


def _listed(models: Iterable[ModelVersion]) -> str:
    return ", ".join(model.version for model in sorted(models))


NO_PLACEMENT = RoutingTable(Placement())
"""What a router knows before it knows anything."""
