"""Processes of this machine: who descends from whom, and how a family ends together. Linux only."""

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

_LINUX = sys.platform == "linux"
_PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_ZOMBIE = "Z"


@dataclass(frozen=True, slots=True)
class Process:
    """One process; a zombie has ended, and its parent has not yet looked."""

    pid: int
    parent_pid: int
    name: str
    zombie: bool


def processes() -> list[Process]:
    """Return every process of the machine."""
    found = (_read(int(entry.name)) for entry in _PROC.iterdir() if entry.name.isdecimal()) if _LINUX else ()
    return [process for process in found if process]


def descendants(pid: int) -> list[Process]:
    """Return the children of a process, their children and so on, parents first."""
    everyone = processes()
    family, found = {pid}, list[Process]()
    while born := [p for p in everyone if p.parent_pid in family and p.pid not in family]:
        found += born
        family.update(process.pid for process in born)
    return found


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, 0 if there is none."""
    try:
        pages = (_PROC / str(pid) / "statm").read_text().split()[1]
    except (OSError, IndexError):
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent ends, even by SIGKILL.

    Exits at once where the parent has ended before.
    """
    if not _LINUX:
        return
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent_pid:
        sys.exit("the supervisor is gone")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends, so that none escapes."""
    if _LINUX:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_children(spared: Collection[int] = (), *, patience_s: float = 3.0) -> None:
    """End all descendants of this process but the spared children and what descends from those.

    SIGTERM first, SIGKILL for those that are left after `patience_s`. Call `adopt_orphans` before.
    """
    deadline = time.monotonic() + patience_s
    sent = signal.SIGTERM
    told: set[int] = set()
    while doomed := _doomed(spared):
        for pid in doomed - told:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
        told |= doomed
        if sent is signal.SIGTERM and time.monotonic() > deadline:
            sent, told = signal.SIGKILL, set()
        time.sleep(0.02)


def _doomed(spared: Collection[int]) -> set[int]:
    """Return the descendants that are to end; reaps those that have ended."""
    keep = set(spared).union(*({p.pid for p in descendants(pid)} for pid in spared))
    family = [process for process in descendants(os.getpid()) if process.pid not in keep]
    for process in family:
        if process.zombie and process.parent_pid == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, os.WNOHANG)
    return {process.pid for process in family if not process.zombie}


def _read(pid: int) -> Process | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text()
    except (OSError, UnicodeDecodeError):
        return None
    # The name stands in parentheses and may itself hold spaces and parentheses.
    name, _, rest = stat.partition("(")[2].rpartition(") ")
    state, parent_pid = rest.split()[:2]
    return Process(pid, int(parent_pid), name, state == _ZOMBIE)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl failed")
