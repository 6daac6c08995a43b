"""Processes that a benchmark starts, and ends with all that they started themselves."""

import contextlib
import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.processes import descendants, processes
from deploy.settings import PROJECT_ROOT, child_environment

START_TIMEOUT_S = 180.0
_STOP_TIMEOUT_S = 8.0
_LOG_CHARS = 4_000


@dataclass(frozen=True, slots=True)
class Child:
    """A process that tells in its first line, as JSON, that it serves."""

    process: "subprocess.Popen[str]"
    log: Path

    @property
    def pid(self) -> int:
        """Return its id."""
        return self.process.pid

    def told(self) -> Any:
        """Wait for the first line and return what it says."""
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], START_TIMEOUT_S)
        line = self.process.stdout.readline() if readable else ""
        if not line:
            log = self.log.read_text()[-_LOG_CHARS:]
            raise RuntimeError(f"{self.process.args!r} does not serve: {log}")
        return json.loads(line)


@contextmanager
def child_process(
    arguments: Sequence[str], folder: Path, more: Mapping[str, str] | None = None
) -> Iterator[Child]:
    """Start a process with its log in the folder; ends it with all that it started."""
    path = folder / "log"
    with (
        path.open("a") as log,
        subprocess.Popen(
            arguments,
            cwd=PROJECT_ROOT,
            env=child_environment(None) | dict(more or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        ) as process,
    ):
        try:
            yield Child(process, path)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    family = {each.pid: each.name for each in descendants(process.pid)}
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_TIMEOUT_S)
    process.kill()
    for each in processes():
        if family.get(each.pid) == each.name and not each.zombie:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each.pid, signal.SIGKILL)
