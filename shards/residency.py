"""The bundles that a shard holds: always loaded, or on demand within the memory that there is."""

import logging
import math
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from shards.bundle import open_bundle, read_manifest
from shards.errors import (
    FailedModel,
    FieldViolation,
    InvalidInput,
    NoRoomYet,
    NotOwner,
    Overloaded,
    OversizedBundle,
    Unavailable,
)
from shards.eviction import EvictionLimits, NoRoom, Resident, choose_victims
from shards.holding import LOADED, Holding, Terms
from shards.load_attempts import AttemptLimits
from shards.load_history import LoadHistory
from shards.loading import LoadedBundle, load_bundle, served_bytes
from shards.memory_use import NOTHING, MemoryUse
from shards.pace import Pace
from shards.process_memory import give_back_memory
from shards.program import ProgramReader, prepare_program
from shards.reference import Reference
from shards.release import ModelVersion, Stage
from shards.replica import Replica, ReplicaState
from shards.stages import Servable

log = logging.getLogger(__name__)


_SERVING_S = 1.0
_LIMITS, _ATTEMPTS = EvictionLimits(), AttemptLimits()


@dataclass(frozen=True, slots=True)
class _Owner:
    """Who took over a bundle that left this shard."""

    shard_id: str
    generation: int


class Residency:
    """Thread-safe; one bundle loads at a time, so that its memory can be told from that of others.

    With `trusted` keys only bundles that one of them has signed are opened.
    """

    def __init__(
        self,
        *,
        device: str = "cpu",
        limits: EvictionLimits = _LIMITS,
        attempts: AttemptLimits = _ATTEMPTS,
        clock: Callable[[], float] = time.monotonic,
        trusted: Collection[str] = (),
    ) -> None:
        self._device = device
        self._limits = limits
        self._attempts = attempts
        self._clock = clock
        self._trusted = trusted
        self._read_program: ProgramReader = prepare_program
        self._gives_way = False
        self._pace = Pace(wanted=lambda: self._gives_way and self._serves())
        self._taken_s = -math.inf
        self._loading = threading.Lock()
        self._lock = threading.Lock()
        self._held: dict[ModelVersion, Holding] = {}
        self._owners: dict[ModelVersion, _Owner] = {}
        self.history = LoadHistory()

    def give_way(self, reader: ProgramReader) -> None:
        """Let loads give way to requests from now on: they rest between steps, and `reader` reads programs.

        Until then they are as fast as can be.
        """
        self._read_program = reader
        self._gives_way = True

    @property
    def loading(self) -> bool:
        """Return whether a bundle comes or goes just now."""
        return self._loading.locked()

    def load(self, model: ModelVersion, path: Path, terms: Terms = LOADED) -> Replica:
        """Verify a bundle and, unless it is held on demand, load it; it serves, or is COLD, on return.

        One that serves already goes on under the new terms. What goes wrong, BundleError above all, is
        recorded and raised; the other bundles serve on. Raises OversizedBundle where it cannot fit, and
        Overloaded where it does not fit until requests for others end.
        """
        with self._loading:
            held = self._held.get(model)
            if held is not None and held.servable is not None:
                held.terms = terms
                return held.replica
            loading = Replica(model=model, stage=read_manifest(path).stage, state=ReplicaState.LOADING)
            asked = self._keep(Holding(replica=loading, path=path, terms=terms), held)
            try:
                return self._register(asked) if terms.on_demand else self._bring_in(asked)
            except Exception as error:
                self.history.failed()
                self._tell(asked, ReplicaState.FAILED, str(error) or repr(error))
                raise

    def restore(self, model: ModelVersion, stage: Stage, path: Path, terms: Terms) -> None:
        """Hold on demand what was verified in a life before; it is verified again when it loads."""
        cold = Replica(model=model, stage=stage, state=ReplicaState.COLD, memory_bytes=terms.memory_bytes)
        self._keep(Holding(replica=cold, path=path, terms=terms), None)

    def demand(self, model: ModelVersion) -> Replica:
        """Load a bundle that is held on demand, if it is not loaded; it serves on return.

        Raises NotOwner where it is not held, Unavailable with the reason where it cannot be loaded, now or
        ever, and Overloaded where nothing may be evicted for it now.
        """
        with self._loading:
            held = self._held.get(model)
            if held is None:
                raise self._not_owner(model)
            if held.servable is not None:
                return held.replica
            held.attempts.check(self._clock(), f"model {model}")
            self._tell(held, ReplicaState.LOADING)
            try:
                return self._bring_in(held)
            except Overloaded as error:
                self.history.failed(for_room=True)
                self._tell(held, ReplicaState.COLD, str(error))
                raise
            except Exception as error:
                # Whatever is wrong with it, its callers learn, and the shard serves its other bundles.
                raise self._failed(held, error) from error

    def unload(self, model: ModelVersion, *, owner: str = "", generation: int = 0) -> None:
        """Let a bundle go; late callers are told its `owner`. Requests in flight finish."""
        with self._loading:
            with self._lock:
                held = self._held.pop(model, None)
                self._owners[model] = _Owner(owner, generation)
            if held is not None and held.servable is not None:
                del held
                give_back_memory()
                self._pace.rest()

    def take(self, model: ModelVersion, stage: Stage) -> Servable | None:
        """Return what answers for a bundle, or None where `demand` must load it first.

        `give` it back when the request ends: until then it is not evicted. Raises NotOwner where it is not
        held, Unavailable where it is but cannot serve, and InvalidInput where it serves another stage.
        """
        with self._lock:
            held = self._held.get(model)
            if held is None:
                raise self._not_owner(model)
            if held.replica.stage is not stage:
                raise InvalidInput(
                    FieldViolation("model", f"{model} serves {held.replica.stage.value}, not {stage.value}")
                )
            if held.servable is None:
                self._check_on_demand(held)
                return None
            held.in_use += 1
            held.used_s = self._taken_s = self._clock()
            return held.servable

    def give(self, model: ModelVersion, *, answered: bool) -> None:
        """End what `take` began; `answered` requests are counted."""
        with self._lock:
            held = self._held.get(model)
            # It may have been let go, and even have come back, since.
            if held is not None and held.in_use:
                held.in_use -= 1
                held.answered += answered
                held.used_s = self._clock()

    def reference(self, model: ModelVersion) -> Reference | None:
        """Return how scores and features of a bundle were spread in training, as far as that is known."""
        with self._lock:
            held = self._held.get(model)
            return held.reference if held else None

    def replicas(self) -> tuple[Replica, ...]:
        """Return what is held, in whatever state, by name and version."""
        with self._lock:
            return tuple(held.told() for _, held in sorted(self._held.items()))

    def memory(self) -> MemoryUse:
        """Return what the loaded bundles were measured to use."""
        with self._lock:
            return sum((resident.memory for resident in self._residents()), NOTHING)

    def _register(self, held: Holding) -> Replica:
        """Verify every byte now, so that a bundle which cannot serve is refused while someone looks."""
        bundle = open_bundle(held.path, held.replica.model, self._trusted)
        need = MemoryUse(host_bytes=held.terms.memory_bytes or served_bytes(bundle.manifest, self._device))
        match choose_victims(self._clock(), (), need, self._limits):
            case NoRoom() as refused:
                raise OversizedBundle(str(held.replica.model), refused.reason)
        return self._tell(held, ReplicaState.COLD)

    def _bring_in(self, held: Holding) -> Replica:
        """Load a bundle, having made room for what it will need and then for what it was measured to need."""
        model = held.replica.model
        self._pace.rest()
        self._make_room(held, self._estimate(held))
        self._pace.rest()
        loaded = load_bundle(
            model, held.path, self._device, self._read_program, self._pace.rest, self._trusted
        )
        held.memory, held.reload_s = loaded.memory, loaded.load_time_s
        try:
            self._make_room(held, loaded.memory)
        except Exception:
            del loaded
            give_back_memory()
            raise
        return self._serve(held, loaded)

    def _serves(self) -> bool:
        """Return whether requests come: a shard without any loads as fast as it can."""
        return self._clock() - self._taken_s < _SERVING_S

    def _serve(self, held: Holding, loaded: LoadedBundle) -> Replica:
        with self._lock:
            held.serve(loaded, self._clock())
        self.history.loaded(loaded.load_time_s)
        log.info("%s serves after %d ms", held.replica.model, held.replica.load_time_ms)
        return held.replica

    def _estimate(self, held: Holding) -> MemoryUse:
        """Return what a bundle will need: as measured here before, or elsewhere, or else its size on disk."""
        if held.memory != NOTHING:
            return held.memory
        known_bytes = held.terms.memory_bytes
        return MemoryUse(host_bytes=known_bytes or served_bytes(read_manifest(held.path), self._device))

    def _make_room(self, held: Holding, need: MemoryUse) -> None:
        """Evict what must go; OversizedBundle or Overloaded where nothing that may go makes enough room."""
        limits = self._limits
        if not held.evictable:
            # What operators want loaded does not wait for others to have had their time.
            limits = replace(limits, min_idle_s=0.0, min_residence_s=0.0)
        with self._lock:
            choice = choose_victims(self._clock(), self._residents(), need, limits)
            if isinstance(choice, NoRoom):
                if choice.never:
                    raise OversizedBundle(str(held.replica.model), choice.reason)
                raise NoRoomYet(
                    f"model {held.replica.model}: {choice.reason}", retry_after_s=choice.retry_after_s
                )
            for model in choice.models:
                self._held[model].evict()
        self.history.evicted(len(choice.models))
        if choice.models:
            log.info("%s makes %s cold", held.replica.model, ", ".join(map(str, choice.models)))
            give_back_memory()

    def _failed(self, held: Holding, error: Exception) -> FailedModel:
        self.history.failed()
        reason = str(error) or repr(error)
        model = held.replica.model
        log.warning("%s at %s failed to load: %s", model, held.path, reason)
        with self._lock:
            held.attempts = held.attempts.failed(self._clock(), reason, self._attempts)
        self._tell(held, ReplicaState.FAILED if held.attempts.given_up else ReplicaState.COLD, reason)
        return FailedModel(f"model {model} failed to load: {reason}")

    def _check_on_demand(self, held: Holding) -> None:
        """Raise Unavailable where a bundle that is not loaded need not be waited for."""
        model, state = held.replica.model, held.replica.state
        held.attempts.check(self._clock(), f"model {model}")
        if not held.terms.on_demand or state is ReplicaState.FAILED:
            raise Unavailable(f"model {model} is {state.value} here")

    def _not_owner(self, model: ModelVersion) -> NotOwner:
        owner = self._owners.get(model, _Owner("", 0))
        return NotOwner(str(model), owner=owner.shard_id, generation=owner.generation)

    def _residents(self) -> Sequence[Resident]:
        return [held.resident() for held in self._held.values() if held.servable is not None]

    def _keep(self, held: Holding, before: Holding | None) -> Holding:
        if before is not None:
            held.inherit(before)
        with self._lock:
            self._held[held.replica.model] = held
            self._owners.pop(held.replica.model, None)
        return held

    def _tell(self, held: Holding, state: ReplicaState, error: str = "") -> Replica:
        with self._lock:
            held.replica = replace(held.replica, state=state, error=error)
        return held.replica
