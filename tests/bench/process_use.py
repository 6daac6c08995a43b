"""What processes of this machine have used: processor time and resident memory. Linux only."""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from deploy.processes import resident_bytes

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessUse:
    """One process at one moment."""

    cpu_s: float
    memory_bytes: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return what a process has used until now; raises OSError when there is none."""
        stat = Path(f"/proc/{pid}/stat").read_text()
        # The name stands in parentheses and may itself hold spaces.
        fields = stat.rpartition(") ")[2].split()
        user, system = int(fields[11]), int(fields[12])
        return cls(cpu_s=(user + system) / _TICKS_PER_S, memory_bytes=resident_bytes(pid))


def processor_s_by_thread(pid: int) -> dict[tuple[int, str], float]:
    """Return what each thread of a process has used until now, by its id and name."""
    found = {}
    for folder in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            name, _, rest = (folder / "stat").read_text().partition(" (")[2].rpartition(") ")
            user, system = rest.split()[11:13]
            found[int(folder.name), name] = (int(user) + int(system)) / _TICKS_PER_S
    return found
