"""The bundles a shard holds, and the record from which it takes them up again after a restart."""

import logging
from dataclasses import replace
from pathlib import Path

from services.shard_record import HeldBundle, ShardRecord, read_record, write_record
from shards.cluster_state import Replica, ReplicaState
from shards.errors import CorruptRecord, HeadraceError
from shards.release import ModelVersion
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
        """Write down the port that the shard serves on now."""
        self._keep(replace(self._record, port=port))

    def load(self, model: ModelVersion, path: Path) -> Replica:
        """Load a bundle, or return it as it is held when it serves already; raises `BundleError`."""
        replica = self._residency.load(model, path)
        self._keep(self._record.with_bundle(HeldBundle(model=model, stage=replica.stage, path=path)))
        return replica

    def unload(self, model: ModelVersion, *, owner: str, generation: int) -> None:
        """Let a bundle go; late requests are told its `owner` since `generation`."""
        self._keep(self._record.without_bundle(model))
        self._residency.unload(model, owner=owner, generation=generation)

    def restore(self, held: HeldBundle) -> None:
        """Load a recorded bundle; one that is refused stays in the record, for another life."""
        try:
            self._residency.load(held.model, held.path)
        except Exception as error:
            # Whatever is wrong with one bundle, the shard goes on with the others.
            self._lost[held.model] = str(error) or repr(error)
            unplanned = None if isinstance(error, HeadraceError) else error
            log.error("%s at %s is not restored: %s", held.model, held.path, error, exc_info=unplanned)

    def _keep(self, record: ShardRecord) -> None:
        if record != self._record:
            write_record(self._record_path, record)
            self._record = record


def _recorded(path: Path) -> ShardRecord:
    """Return the record, or an empty one for a file that cannot be read: the controller loads again."""
    try:
        return read_record(path)
    except CorruptRecord as error:
        log.error("the shard starts empty: %s", error)
        return ShardRecord()
