"""One bundle on one shard, as the shard tells of it."""

import enum
from dataclasses import dataclass

from shards.live_quality import UNKNOWN, LiveQuality
from shards.release import ModelVersion, Stage


class ReplicaState(enum.Enum):
    """State of one bundle on one shard."""

    LOADING = "loading"
    READY = "ready"
    FAILED = "failed"
    COLD = "cold"
    """Held on demand and not in memory now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """One bundle on one shard, as the shard reports it; memory is measured while loading.

    A COLD one tells what it used when it was last loaded, 0 when it never was.

    `requests` counts what it has answered in this life of the shard, `loads` and `evictions` how often it
    came into memory and went.
    """

    model: ModelVersion
    stage: Stage
    state: ReplicaState
    memory_bytes: int = 0
    error: str = ""
    load_time_ms: int = 0
    gpu_memory_bytes: int = 0
    requests: int = 0
    loads: int = 0
    evictions: int = 0
    quality: LiveQuality = UNKNOWN

    def same_but_use(self, other: "Replica") -> bool:
        """Return whether two looks differ at most in the requests answered."""
        return (self.state, self.memory_bytes, self.gpu_memory_bytes, self.error) == (
            other.state,
            other.memory_bytes,
            other.gpu_memory_bytes,
            other.error,
        )
