"""A cluster as its operators see it: `headrace up` in a process of its own, over small models."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from deploy.processes import Process, descendants, processes
from deploy.release_files import write_release
from deploy.settings import PROJECT_ROOT
from deploy.workspace import Workspace
from tests.shards.bundles import RELEASE, build_models

assert RELEASE.pre_ranker
assert RELEASE.ranker
PATIENT = replace(
    RELEASE,
    retrieval_budget_ms=3_000,
    pre_ranker=replace(RELEASE.pre_ranker, budget_ms=3_000),
    ranker=replace(RELEASE.ranker, budget_ms=3_000),
)
"""A busy machine that tests and starts shards at once may be slow; that is no failure of the cluster."""

_READY = re.compile(r"READY router=(\S+:\d+) controller=(\S+:\d+)(?: console=(\S+:\d+))?\n")
_START_TIMEOUT_S = 150.0
_STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class RunningCluster:
    """A cluster that has said READY."""

    process: subprocess.Popen[str]
    workspace: Workspace
    router: str
    controller: str
    console: str = ""

    def pid(self, name: str) -> int:
        """Return the process id of "controller", "router-0" …, as the cluster has noted it."""
        return self.workspace.running().processes[name]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait until the command has ended and return its exit status."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        return self.process.wait(_STOP_TIMEOUT_S)


def headrace(*arguments: str) -> list[str]:
    """Return the command line of a `headrace` command."""
    return [sys.executable, "-m", "deploy.cli", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a `headrace` command to its end."""
    return subprocess.run(
        headrace(*arguments), cwd=PROJECT_ROOT, capture_output=True, text=True, check=False, timeout=120
    )


def make_workspace(root: Path) -> Workspace:
    """Return a workspace with small models of every engine and the release that pins them."""
    workspace = Workspace(root)
    workspace.models_dir.mkdir(parents=True)
    build_models(workspace.models_dir)
    write_release(workspace, PATIENT)
    return workspace


def start(workspace: Workspace, *options: str) -> subprocess.Popen[str]:
    """Start `headrace up`; its standard error goes to `up.err` in the workspace."""
    workspace.root.mkdir(parents=True, exist_ok=True)
    with (workspace.root / "up.err").open("w") as errors:
        return subprocess.Popen(
            headrace("up", "--workspace", str(workspace.root), *options),
            cwd=PROJECT_ROOT,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            start_new_session=True,
        )


@contextmanager
def running_cluster(
    workspace: Workspace, *options: str, within_s: float = _START_TIMEOUT_S
) -> Iterator[RunningCluster]:
    """Run `headrace up` from READY on; whatever the test does, nothing of it is left afterwards."""
    process = start(workspace, *options)
    assert process.stdout is not None
    try:
        readable, _, _ = select.select([process.stdout], [], [], within_s)
        line = process.stdout.readline() if readable else ""
        ready = _READY.fullmatch(line)
        assert ready, f"{line!r}, {(workspace.root / 'up.err').read_text()}"
        yield RunningCluster(process, workspace, ready[1], ready[2], ready[3] or "")
    finally:
        family = descendants(process.pid)
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_TIMEOUT_S)
            process.kill()
        process.wait()
        process.stdout.close()
        for left in alive(family):
            with contextlib.suppress(ProcessLookupError):
                os.kill(left.pid, signal.SIGKILL)


def alive(family: Sequence[Process]) -> list[Process]:
    """Return those of the processes that still run."""
    names = {process.pid: process.name for process in family}
    return [p for p in processes() if names.get(p.pid) == p.name and not p.zombie]


def wait_until(holds: Callable[[], bool], *, within_s: float = 60.0) -> None:
    """Return as soon as the condition holds; AssertionError when it never does."""
    deadline_s = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline_s, f"not so within {within_s:.0f} s"
        time.sleep(0.05)
