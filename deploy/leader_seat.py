"""The leader's place on this host: one of several controllers sits there, and so has the port.

Leadership is Consul's to give. But who has lost it and hangs still holds the port, and would leave callers
waiting; so the next leader on the host ends it.
"""

import asyncio
import fcntl
import logging
import os
import signal
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from shards.errors import Unavailable

log = logging.getLogger(__name__)

_PATIENCE_S = 1.0
"""A leader that notices its loss needs less to stop serving."""

_KILLED_WITHIN_S = 5.0
_LOOK_EVERY_S = 0.02

_FLOCK = "hhqqi4x"
"""`struct flock` of 64-bit Linux: type, whence, start, length, process id."""


@asynccontextmanager
async def seated(path: Path) -> AsyncIterator[None]:
    """Sit in the place while the block runs; only for whoever leads.

    Whoever sits there has lost its leadership, and is killed when it does not leave within a second. The
    file is locked as the kernel does it, which lets go with its process and tells whose it is.
    Raises `Unavailable` when that one cannot be ended.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        if not await _taken(descriptor, _PATIENCE_S):
            _kill(_holder(descriptor))
            if not await _taken(descriptor, _KILLED_WITHIN_S):
                raise Unavailable(f"{path} is held by a controller that cannot be ended")
        yield
    finally:
        os.close(descriptor)


async def _taken(descriptor: int, within_s: float) -> bool:
    late_s = time.monotonic() + within_s
    while not _try_lock(descriptor):
        if time.monotonic() > late_s:
            return False
        await asyncio.sleep(_LOOK_EVERY_S)
    return True


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _holder(descriptor: int) -> int:
    """Return the process id of the lock's holder, 0 when there is none or it is not to be seen from here."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(descriptor, fcntl.F_GETLK, asked))
    return max(0, pid) if kind != fcntl.F_UNLCK else 0


def _kill(pid: int) -> None:
    if pid:
        log.warning("the controller %d has lost its leadership, does not stop and is killed", pid)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
