"""The bundles a shard holds, and the record from which it takes them up again after a restart."""

import logging
from dataclasses import replace
from pathlib import Path

from services.shard_record import HeldBundle, ShardRecord, read_record, write_record
from shards.errors import CorruptRecord, HeadraceError, Unavailable
from shards.holding import LOADED, Terms
from shards.memory_use import MemoryUse
from shards.release import ModelVersion
from shards.replica import Replica, ReplicaState
from shards.residency import Residency

log = logging.getLogger(__name__)


class Holdings:
    """Loads and unloads bundles and writes down each change before it is answered.

    Methods that change something block for as long as a bundle takes to load. They are called one
    at a time: on the shard's loader thread once it serves.
    """

    def __init__(self, residency: Residency, record_path: Path) -> None:
        self._residency = residency
        self._record_path = record_path
        self._record = _recorded(record_path)
        # Why recorded bundles are not even known to the residency, say for want of a folder.
        self._lost: dict[ModelVersion, str] = {}

    @property
    def port(self) -> int:
        """Return the port that the shard served on last, 0 for none."""
        return self._record.port

    @property
    def recorded(self) -> tuple[HeldBundle, ...]:
        """Return the bundles that the shard must hold."""
        return self._record.bundles

    @property
    def loading(self) -> bool:
        """Return whether a bundle comes or goes just now."""
        return self._residency.loading

    def memory(self) -> MemoryUse:
        """Return what the loaded bundles were measured to use."""
        return self._residency.memory()

    def replicas(self) -> tuple[Replica, ...]:
        """Return what is held, what waits to be restored (LOADING) and what could not be (FAILED)."""
        resident = {replica.model: replica for replica in self._residency.replicas()}
        awaited = {held.model: self._awaited(held) for held in self._record.bundles}
        return tuple((awaited | resident).values())

    def _awaited(self, held: HeldBundle) -> Replica:
        error = self._lost.get(held.model, "")
        state = ReplicaState.FAILED if error else ReplicaState.LOADING
        return Replica(model=held.model, stage=held.stage, state=state, error=error)

    def keep_port(self, port: int) -> None:
        """Write down the port that the shard serves on now; where it cannot, the shard serves on."""
        self._keep_if_possible(replace(self._record, port=port))

    def load(self, model: ModelVersion, path: Path, terms: Terms = LOADED) -> Replica:
        """Load a bundle, or hold it on demand, or return it as it is when it serves already.

        Raises what `Residency.load` raises, and `Unavailable` where it cannot be written down: then a
        bundle that was not held before is let go again, as it would be lost with the process.
        """
        known = any(held.model == model for held in self._record.bundles)
        replica = self._residency.load(model, path, terms)
        try:
            self._keep(self._record.with_bundle(_held_bundle(replica, path, terms)))
        except Unavailable:
            if not known:
                self._residency.unload(model)
            raise
        self._lost.pop(model, None)
        return replica

    def demand(self, model: ModelVersion) -> None:
        """Load a bundle that is held on demand; raises what `Residency.demand` raises."""
        replica = self._residency.demand(model)
        self._keep_if_possible(self._record.with_memory(model, replica.memory_bytes))

    def unload(self, model: ModelVersion, *, owner: str, generation: int) -> None:
        """Let a bundle go; late requests are told its `owner` since `generation`.

        Raises `Unavailable`, and goes on holding it, where that cannot be written down.
        """
        self._keep(self._record.without_bundle(model))
        self._lost.pop(model, None)
        self._residency.unload(model, owner=owner, generation=generation)

    def restore_on_demand(self) -> None:
        """Hold on demand what was held so in the life before, at once: nothing is loaded."""
        for held in self._record.bundles:
            if held.on_demand:
                self._residency.restore(held.model, held.stage, held.path, _terms(held))

    def restore(self, held: HeldBundle) -> None:
        """Load a recorded bundle; one that is refused stays in the record, for another life."""
        try:
            self._residency.load(held.model, held.path, _terms(held))
        except Exception as error:
            # Whatever is wrong with one bundle, the shard goes on with the others.
            self._lost[held.model] = str(error) or repr(error)
            unplanned = None if isinstance(error, HeadraceError) else error
            log.error("%s at %s is not restored: %s", held.model, held.path, error, exc_info=unplanned)

    def _keep(self, record: ShardRecord) -> None:
        if record == self._record:
            return
        try:
            write_record(self._record_path, record)
        except OSError as error:
            raise Unavailable(
                f"the shard's record {self._record_path} cannot be written: {error.strerror}"
            ) from error
        self._record = record

    def _keep_if_possible(self, record: ShardRecord) -> None:
        try:
            self._keep(record)
        except Unavailable as error:
            log.error("%s", error)


def _held_bundle(replica: Replica, path: Path, terms: Terms) -> HeldBundle:
    return HeldBundle(
        model=replica.model,
        stage=replica.stage,
        path=path,
        on_demand=terms.on_demand,
        pinned=terms.pinned,
        memory_bytes=replica.memory_bytes or terms.memory_bytes,
    )


def _terms(held: HeldBundle) -> Terms:
    return Terms(on_demand=held.on_demand, pinned=held.pinned, memory_bytes=held.memory_bytes)


def _recorded(path: Path) -> ShardRecord:
    """Return the record, or an empty one for a file that cannot be read: the controller loads again."""
    try:
        return read_record(path)
    except CorruptRecord as error:
        log.error("the shard starts empty: %s", error)
        return ShardRecord()
