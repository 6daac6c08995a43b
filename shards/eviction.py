"""Which bundles make room for another one, or why none may; pure.

Never pinned or always loaded ones, never one that answers a request now. And, so that bundles which take
turns do not push each other out all the time, none that was used a moment ago or has only just been loaded.
Of the others those go first that were idle for long and are quick to load again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from shards.memory_use import NOTHING, MemoryUse
from shards.release import ModelVersion

_MIN_RELOAD_S = 0.01
"""What loads in no time at all is worth no less than this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """One loaded bundle; times in seconds on the clock of the caller."""

    model: ModelVersion
    memory: MemoryUse
    evictable: bool
    in_use: bool
    used_s: float
    """When a request last began or ended."""
    loaded_s: float
    reload_s: float
    """What loading it took, and will take again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvictionLimits:
    """Room of a shard, 0 for no limit, and how long bundles stay for sure."""

    capacity: MemoryUse = NOTHING
    min_idle_s: float = 2.0
    """Not asked for at least this long."""
    min_residence_s: float = 15.0
    """Loaded for at least this long."""

    def __post_init__(self) -> None:
        if min(self.capacity.host_bytes, self.capacity.gpu_bytes) < 0:
            raise ValueError("capacity must not be negative")
        if self.min_idle_s < 0 or self.min_residence_s < 0:
            raise ValueError("min_idle_s and min_residence_s must not be negative")


@dataclass(frozen=True, slots=True)
class Victims:
    """These go, in this order; none where there is room already."""

    models: tuple[ModelVersion, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NoRoom:
    """Nothing that may go makes enough room; `never` where nothing that could ever go would."""

    reason: str
    retry_after_s: float
    never: bool


def choose_victims(
    now_s: float, residents: Sequence[Resident], need: MemoryUse, limits: EvictionLimits
) -> Victims | NoRoom:
    """Return which of the residents must go so that `need` more fits into the capacity."""
    total = sum((resident.memory for resident in residents), need)
    excess = _excess(total, limits.capacity)
    fixed = sum((resident.memory for resident in residents if not resident.evictable), need)
    if any(_excess(fixed, limits.capacity)):
        return NoRoom(reason=_never(need, fixed - need, limits.capacity), retry_after_s=0.0, never=True)
    candidates = sorted(
        (resident for resident in residents if resident.evictable and _free_in(now_s, resident, limits) <= 0),
        key=lambda resident: (-_worth_evicting(now_s, resident), resident.model),
    )
    chosen: list[Resident] = []
    for resident in candidates:
        if not any(excess):
            break
        chosen.append(resident)
        excess = _excess(total - _sum(chosen), limits.capacity)
    if any(excess):
        return _busy(now_s, residents, need, total, limits)
    return Victims(tuple(resident.model for resident in _needed(chosen, total, limits.capacity)))


def _needed(chosen: Sequence[Resident], total: MemoryUse, capacity: MemoryUse) -> list[Resident]:
    """Return the chosen without those that later ones made unnecessary."""
    kept = list(chosen)
    for resident in reversed(chosen):
        without = [other for other in kept if other is not resident]
        if not any(_excess(total - _sum(without), capacity)):
            kept = without
    return kept


def _worth_evicting(now_s: float, resident: Resident) -> float:
    """Return the idle time in units of what loading again costs."""
    return (now_s - resident.used_s) / max(resident.reload_s, _MIN_RELOAD_S)


def _free_in(now_s: float, resident: Resident, limits: EvictionLimits) -> float:
    """Return the seconds until it may go; what is in use is taken to end now."""
    idle_left_s = limits.min_idle_s - (0.0 if resident.in_use else now_s - resident.used_s)
    residence_left_s = limits.min_residence_s - (now_s - resident.loaded_s)
    # However short the minimum, what answers a request now stays.
    in_use_s = 0.05 if resident.in_use else 0.0
    return max(idle_left_s, residence_left_s, in_use_s)


def _busy(
    now_s: float, residents: Sequence[Resident], need: MemoryUse, total: MemoryUse, limits: EvictionLimits
) -> NoRoom:
    """Return when enough of them may go, if nobody asks for them until then."""
    going: list[Resident] = []
    wait_s = 0.0
    evictable = [resident for resident in residents if resident.evictable]
    for resident in sorted(evictable, key=lambda resident: _free_in(now_s, resident, limits)):
        if not any(_excess(total - _sum(going), limits.capacity)):
            break
        going.append(resident)
        wait_s = max(wait_s, _free_in(now_s, resident, limits))
    reason = f"{need} more do not fit beside {total - need} of loaded bundles, of which too few may go yet"
    return NoRoom(reason=reason, retry_after_s=wait_s, never=False)


def _never(need: MemoryUse, fixed: MemoryUse, capacity: MemoryUse) -> str:
    return f"needs {need}, and of {capacity} for bundles {fixed} are held by bundles that stay"


def _sum(residents: Sequence[Resident]) -> MemoryUse:
    return sum((resident.memory for resident in residents), NOTHING)


def _excess(total: MemoryUse, capacity: MemoryUse) -> tuple[int, int]:
    """Return the bytes above the capacity, on the host and on the GPU."""
    host = max(0, total.host_bytes - capacity.host_bytes) if capacity.host_bytes else 0
    gpu = max(0, total.gpu_bytes - capacity.gpu_bytes) if capacity.gpu_bytes else 0
    return host, gpu
