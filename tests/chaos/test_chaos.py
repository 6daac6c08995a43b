"""A short round on a real cluster: several Ray nodes, a Consul agent, two controllers, two routers."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.processes import descendants
from deploy.settings import PROJECT_ROOT
from tests.deploy.running_cluster import alive
from tests.services.consul_agent import consul_program

pytestmark = pytest.mark.cluster

_SHORT = "moves,flip,restart-routers,kill-shard,kill-controller,kill-agent"
_TIMEOUT_S = 280


@pytest.mark.timeout(_TIMEOUT_S + 20)
def test_faults_and_operations_lose_no_search(tmp_path: Path) -> None:
    consul_program()
    command = [sys.executable, "-m", "tests.chaos", "--seed", "1", "--short", "--only", _SHORT]
    told = tmp_path / "told.txt"
    with told.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        document, _ = process.communicate(timeout=_TIMEOUT_S)
    finally:
        _end(process)
    assert process.returncode == 0, told.read_text()
    report = json.loads(document)
    assert report["lost"] == 0
    assert [phase["name"] for phase in report["phases"]] == _SHORT.split(",")
    assert all(phase["during"]["requests"] for phase in report["phases"]), report


def _end(process: "subprocess.Popen[str]") -> None:
    """Have the run end with all its processes; it takes them down itself unless it hangs."""
    family = descendants(process.pid)
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(60)
        process.kill()
        process.wait()
    for left in alive(family):
        with contextlib.suppress(ProcessLookupError):
            os.kill(left.pid, signal.SIGKILL)
