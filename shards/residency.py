"""The bundles that a shard holds: verified, opened, checked against their goldens, warm, and let go again."""

import ctypes
import gc
import logging
import os
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

from shards.bundle import Bundle, open_bundle, read_manifest
from shards.cluster_state import Replica, ReplicaState
from shards.errors import FieldViolation, InvalidInput, MismatchedBundle, NotOwner, Unavailable
from shards.golden import GOLDEN_FILE, read_golden, replay
from shards.release import ModelVersion, Stage
from shards.servable import open_servable
from shards.stages import Servable

log = logging.getLogger(__name__)

WARM_UP_ROUNDS = 3
"""How often the goldens are asked, once to compare and again for caches and lazy start-up."""


@dataclass(frozen=True, slots=True)
class _Owner:
    """Who took over a bundle that left this shard."""

    shard_id: str
    generation: int


class Residency:
    """Thread-safe; one bundle loads at a time, so that its memory can be told from that of others."""

    def __init__(self, *, device: str = "cpu") -> None:
        self._device = device
        self._loading = threading.Lock()
        self._lock = threading.Lock()
        self._replicas: dict[ModelVersion, Replica] = {}
        self._servables: dict[ModelVersion, Servable] = {}
        self._owners: dict[ModelVersion, _Owner] = {}

    def load(self, model: ModelVersion, path: Path) -> Replica:
        """Verify, open, replay and warm up a bundle; it serves on return.

        A bundle that serves already is returned as it is. What goes wrong, BundleError above all, is
        recorded and raised; the other bundles serve on.
        """
        with self._loading:
            held = self._replicas.get(model)
            if held is not None and held.state is ReplicaState.READY:
                return held
            loading = Replica(model=model, stage=read_manifest(path).stage, state=ReplicaState.LOADING)
            self._keep(loading)
            try:
                return self._load(loading, path)
            except Exception as error:
                self._keep(replace(loading, state=ReplicaState.FAILED, error=str(error) or repr(error)))
                raise

    def unload(self, model: ModelVersion, *, owner: str = "", generation: int = 0) -> None:
        """Let a bundle go; late callers are told its `owner`. Requests in flight finish."""
        with self._loading:
            with self._lock:
                self._replicas.pop(model, None)
                self._servables.pop(model, None)
                self._owners[model] = _Owner(owner, generation)
            _give_back_memory()

    def get(self, model: ModelVersion, stage: Stage) -> Servable:
        """Return what answers for a bundle.

        Raises NotOwner where it is not held, Unavailable where it is but does not serve, and
        InvalidInput where it serves another stage.
        """
        with self._lock:
            replica, servable = self._replicas.get(model), self._servables.get(model)
            owner = self._owners.get(model, _Owner("", 0))
        if replica is None:
            raise NotOwner(str(model), owner=owner.shard_id, generation=owner.generation)
        if servable is None:
            raise Unavailable(f"model {model} is {replica.state.value} here")
        if replica.stage is not stage:
            raise InvalidInput(
                FieldViolation("model", f"{model} serves {replica.stage.value}, not {stage.value}")
            )
        return servable

    def replicas(self) -> tuple[Replica, ...]:
        """Return what is held, in whatever state, by name and version."""
        with self._lock:
            return tuple(self._replicas[model] for model in sorted(self._replicas))

    def _load(self, loading: Replica, path: Path) -> Replica:
        started = time.monotonic()
        before_bytes = resident_bytes()
        bundle = open_bundle(path, loading.model)
        servable = open_servable(bundle, self._device)
        _warm_up(servable, bundle)
        ready = replace(
            loading,
            state=ReplicaState.READY,
            memory_bytes=max(0, resident_bytes() - before_bytes),
            load_time_ms=round((time.monotonic() - started) * 1000),
        )
        self._keep(ready, servable)
        log.info("%s serves after %d ms", loading.model, ready.load_time_ms)
        return ready

    def _keep(self, replica: Replica, servable: Servable | None = None) -> None:
        with self._lock:
            self._replicas[replica.model] = replica
            self._owners.pop(replica.model, None)
            if servable is not None:
                self._servables[replica.model] = servable


def resident_bytes() -> int:
    """Return the resident memory of this process, from Linux's `/proc/self/statm`."""
    pages = int(Path("/proc/self/statm").read_bytes().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def _give_back_memory() -> None:
    """Free what was let go: programs are rings of references, and glibc keeps freed pages to itself."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _warm_up(servable: Servable, bundle: Bundle) -> None:
    """Ask the goldens again and again; MismatchedBundle where an answer is not what training saw."""
    golden = read_golden(bundle.file(GOLDEN_FILE))
    if not golden.contexts:
        raise MismatchedBundle(GOLDEN_FILE, "holds no request")
    tolerance = bundle.manifest.tolerance
    for _ in range(WARM_UP_ROUNDS):
        replay(servable, golden, tolerance.rtol, tolerance.atol)
