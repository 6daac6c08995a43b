"""Processor time of families of processes, each process under a name that tells what it does."""

import contextlib
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from deploy.processes import descendants
from tests.bench.process_use import ProcessUse

_LOOK_S = 0.5
_CALM_CORES = 0.3
_CALM_TIMEOUT_S = 15.0


def family(roots: Mapping[str, int]) -> dict[int, str]:
    """Return every process of the families and its name: that of its root, or what Ray calls it."""
    found = {}
    for name, pid in roots.items():
        for each in (pid, *(process.pid for process in descendants(pid))):
            found[each] = _title(each) or name
    return found


def processor_s(roots: Mapping[str, int]) -> defaultdict[str, float]:
    """Return the seconds that the processes of each name have used until now."""
    used: defaultdict[str, float] = defaultdict(float)
    for pid, name in family(roots).items():
        with contextlib.suppress(OSError):
            used[name] += ProcessUse.of(pid).cpu_s
    return used


def wait_for_calm(roots: Mapping[str, int]) -> None:
    """Return when the processes hardly compute any more; some never rest, and are not waited for long."""
    give_up_s = time.monotonic() + _CALM_TIMEOUT_S
    used_s = sum(processor_s(roots).values())
    while time.monotonic() < give_up_s:
        time.sleep(_LOOK_S)
        before_s, used_s = used_s, sum(processor_s(roots).values())
        if used_s - before_s < _CALM_CORES * _LOOK_S:
            return


def _title(pid: int) -> str:
    """Return what a Ray worker calls itself: "ServeReplica:search:ranking"; empty for other processes."""
    try:
        title = Path(f"/proc/{pid}/cmdline").read_bytes().partition(b"\0")[0].decode(errors="replace")
    except OSError:
        return ""
    prefix, _, rest = title.partition("ray::")
    return "" if prefix else rest.partition(" ")[0].partition(".")[0]
