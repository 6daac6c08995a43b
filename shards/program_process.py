"""Programs read in a process of their own, so that the one that serves never stops for it.

Reading holds Python's lock for tens of milliseconds in which no request advances. What comes back is small
(`shards.program`): no pickle, but JSON over a pipe and plain numbers in a file that only these two processes
have open.
"""

import atexit
import contextlib
import functools
import json
import logging
import os
import select
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

import torch

from shards.errors import Unavailable
from shards.json_codec import from_json
from shards.program import Plan, PreparedProgram

log = logging.getLogger(__name__)

_NICE = 10
_PROGRAMS_PER_LIFE = 1000
"""Torch keeps a little of each program that it read; then another process takes over."""
_TRIES = 2
_ANSWER_TIMEOUT_S = 120.0
_END_TIMEOUT_S = 5.0


class ProgramProcess:
    """Thread-safe; `read` starts the process where there is none, and `close` ends it."""

    def __init__(self, *, nice: int = _NICE, programs_per_life: int = _PROGRAMS_PER_LIFE) -> None:
        self._nice = nice
        self._programs_per_life = programs_per_life
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._file: IO[bytes] | None = None
        self._read = 0

    @property
    def pid(self) -> int:
        """Return the id of the process, 0 while there is none."""
        process = self._process
        return 0 if process is None else process.pid

    def start(self) -> None:
        """Start the process, which then imports what it needs, unless it runs; returns at once."""
        with self._lock:
            self._started()

    def read(self, path: Path, device: str) -> PreparedProgram:
        """Return the program in a file, as `prepare_program` does.

        Raises its ValueError, and Unavailable where the process dies again and again.
        """
        with self._lock:
            for _ in range(_TRIES):
                process = self._started()
                answer = _ask(process, {"path": str(path), "device": device})
                if answer:
                    return self._answered(answer)
                self._end()
                log.warning("the process that reads programs ended with %s at %s", process.returncode, path)
            raise Unavailable(f"the process that reads programs ended with {process.returncode} at {path}")

    def close(self) -> None:
        """End the process and wait until it has."""
        with self._lock:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._file = os.fdopen(os.memfd_create("headrace-program"), "r+b", buffering=0)
            descriptor = self._file.fileno()
            self._process = subprocess.Popen(
                [sys.executable, "-m", "shards.program_reader", str(descriptor), str(self._nice)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                pass_fds=[descriptor],
                # It finds what this process finds, wherever that was started.
                env={**os.environ, "PYTHONPATH": _import_path()},
            )
            self._read = 0
        return self._process

    def _answered(self, answer: bytes) -> PreparedProgram:
        document = json.loads(answer)
        if "refused" in document:
            raise ValueError(document["refused"])
        plan = from_json(Plan, document["plan"])
        assert self._file is not None
        prepared = PreparedProgram(plan=plan, storages=_storages(self._file, plan))
        self._file.truncate(0)
        self._read += 1
        if self._read >= self._programs_per_life:
            self._end()
            self._started()
        return prepared

    def _end(self) -> None:
        process, file = self._process, self._file
        self._process = self._file = None
        if process is None or file is None:
            return
        file.close()
        with process, contextlib.suppress(BrokenPipeError):
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_END_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()


@functools.cache
def program_process() -> ProgramProcess:
    """Return the one that all shards of this process share; it ends when this process does."""
    process = ProgramProcess()
    atexit.register(process.close)
    return process


def _import_path() -> str:
    """Return where this process imports from, so that the other one does, wherever this one was started."""
    return os.pathsep.join(path or str(Path.cwd()) for path in sys.path)


def _ask(process: "subprocess.Popen[bytes]", request: dict[str, str]) -> bytes:
    """Return the line that answers, empty where the process is gone or hangs."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(json.dumps(request).encode() + b"\n")
        process.stdin.flush()
    except BrokenPipeError:
        return b""
    answering, _, _ = select.select([process.stdout], [], [], _ANSWER_TIMEOUT_S)
    if not answering:
        process.kill()
        return b""
    answer = process.stdout.readline()
    return answer if answer.endswith(b"\n") else b""


def _storages(file: IO[bytes], plan: Plan) -> tuple[torch.Tensor, ...]:
    file.seek(0)
    storages = []
    for size in plan.storage_bytes:
        storage = torch.empty(size, dtype=torch.uint8)
        left = memoryview(storage.numpy().data)
        while left:
            # Without Python's lock, however large. Linux reads 2 GiB at a time at the most.
            left = left[os.readv(file.fileno(), [left]) :]
        storages.append(storage)
    return tuple(storages)
