"""What each process of a cluster uses over time, and whether that grows."""

import math
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from deploy.processes import resident_bytes

_EVERY_S = 5.0
_WARM_S = 60.0
"""Of a life, left out: libraries and bundles come into memory."""
_LONG_ENOUGH_S = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """One process: how long it was watched, what it used at the end, and by how much that grew a minute."""

    name: str
    pid: int
    seconds: float
    mb: float
    mb_per_min: float


class MemoryWatch:
    """Samples processes by name from `with` on; `pids` says which there are."""

    def __init__(self, pids: Callable[[], Mapping[str, int]]) -> None:
        self._pids = pids
        self._samples: dict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "MemoryWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)

    def lives(self) -> list[Life]:
        """Return the processes that lived long enough to tell, by name."""
        found = []
        for (name, pid), samples in list(self._samples.items()):
            warm = [(at, mb) for at, mb in samples if at >= samples[0][0] + _WARM_S]
            if warm and warm[-1][0] - warm[0][0] >= _LONG_ENOUGH_S:
                found.append(
                    Life(
                        name=name,
                        pid=pid,
                        seconds=warm[-1][0] - samples[0][0],
                        mb=warm[-1][1],
                        mb_per_min=60 * median_slope(warm),
                    )
                )
        return sorted(found, key=lambda life: (life.name, life.pid))

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            for name, pid in self._pids().items():
                if used := resident_bytes(pid):
                    self._samples[name, pid].append((time.monotonic(), used / 2**20))


def median_slope(samples: Sequence[tuple[float, float]]) -> float:
    """Return the median of the slopes of all pairs (Theil and Sen), which single peaks do not move."""
    slopes = sorted((b - a) / (until - since) for (since, a), (until, b) in combinations(samples, 2))
    return slopes[len(slopes) // 2] if slopes else math.nan
