"""What each phase of a run takes, as rows of a CSV file."""

import csv
import time
from dataclasses import dataclass
from pathlib import Path

from shards.process_memory import resident_bytes
from training.trainer import Advanced, EpochEnded, Observer, PhaseStarted

COLUMNS = ("phase", "seconds", "processor_s", "resident_mib")

_EPOCH = ", epoch "


@dataclass(slots=True)
class PhaseTimes:
    """Writes a row for each phase as it ends, and tells `beside` everything.

    A phase ends when the next begins, or with `end`; its memory is what the process holds then.
    """

    path: Path
    beside: Observer
    phase: str = "reading"
    began_s: float = 0.0
    processor_s: float = 0.0

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("w", newline="") as file:
            csv.writer(file).writerow(COLUMNS)
        self._begin(self.phase)

    def __call__(self, event: PhaseStarted | Advanced | EpochEnded) -> None:
        """Hear of an event."""
        self.beside(event)
        if isinstance(event, PhaseStarted):
            phase = event.phase.partition(_EPOCH)[0]
            if phase != self.phase:  # The epochs of a model are one phase.
                self.end()
                self._begin(phase)

    def end(self) -> None:
        """Write the phase under way."""
        taken = (time.perf_counter() - self.began_s, time.process_time() - self.processor_s)
        row = [self.phase, *(f"{seconds:.2f}" for seconds in taken), str(resident_bytes() // 2**20)]
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerow(row)

    def _begin(self, phase: str) -> None:
        self.phase, self.began_s, self.processor_s = phase, time.perf_counter(), time.process_time()
