"""One bundle of a shard: how it is to be held, how it is, and what use is made of it."""

from dataclasses import dataclass, field, replace
from pathlib import Path

from shards.eviction import Resident
from shards.live_quality import LiveQuality, Recall
from shards.load_attempts import LoadAttempts
from shards.loading import LoadedBundle
from shards.memory_use import NOTHING, MemoryUse
from shards.reference import Reference
from shards.replica import Replica, ReplicaState
from shards.stages import Servable


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a bundle is held: loaded for good or on demand, never evicted, and what it is said to need."""

    on_demand: bool = False
    pinned: bool = False
    memory_bytes: int = 0


LOADED = Terms()
"""Loaded for good, wherever there is room."""


@dataclass(slots=True, kw_only=True)
class Holding:
    """One bundle: what is told of it, what answers for it, and how it is used."""

    replica: Replica
    path: Path
    terms: Terms
    memory: MemoryUse = NOTHING
    """Measured when it was last loaded."""
    reload_s: float = 0.0
    servable: Servable | None = None
    golden_recall: Recall | None = None
    reference: Reference | None = None
    attempts: LoadAttempts = field(default_factory=LoadAttempts)
    in_use: int = 0
    answered: int = 0
    loads: int = 0
    evictions: int = 0
    used_s: float = 0.0
    loaded_s: float = 0.0

    @property
    def evictable(self) -> bool:
        """Return whether it may be made cold."""
        return self.terms.on_demand and not self.terms.pinned

    def inherit(self, before: "Holding") -> None:
        """Go on with what was measured and counted of the same bundle before."""
        self.memory, self.reload_s, self.answered = before.memory, before.reload_s, before.answered
        self.loads, self.evictions = before.loads, before.evictions

    def serve(self, loaded: LoadedBundle, now_s: float) -> None:
        """Answer by what was loaded from now on."""
        self.servable = loaded.servable
        self.golden_recall, self.reference = loaded.golden_recall, loaded.reference
        self.attempts = LoadAttempts()
        self.loads += 1
        self.loaded_s = self.used_s = now_s
        self.replica = replace(
            self.replica,
            state=ReplicaState.READY,
            error="",
            memory_bytes=loaded.memory.host_bytes,
            gpu_memory_bytes=loaded.memory.gpu_bytes,
            load_time_ms=round(loaded.load_time_s * 1000),
        )

    def evict(self) -> None:
        """Let go what answers, and be cold."""
        self.servable = None
        self.evictions += 1
        self.replica = replace(self.replica, state=ReplicaState.COLD)

    def told(self) -> Replica:
        """Return what the controller is told of it."""
        return replace(
            self.replica,
            requests=self.answered,
            loads=self.loads,
            evictions=self.evictions,
            quality=LiveQuality(golden=self.golden_recall),
        )

    def resident(self) -> Resident:
        """Return what eviction decides on."""
        return Resident(
            model=self.replica.model,
            memory=self.memory,
            evictable=self.evictable,
            in_use=self.in_use > 0,
            used_s=self.used_s,
            loaded_s=self.loaded_s,
            reload_s=self.reload_s,
        )
