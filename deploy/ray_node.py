"""This host as a node of a Ray that runs elsewhere, without resources: a driver needs a node beside it."""

import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from shards.errors import Unavailable

log = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 80 * 2**20
_STARTED = "Ray runtime started."
_STOP_TIMEOUT_S = 10.0
_REACH_TIMEOUT_S = 10.0


@contextmanager
def ray_node(address: str) -> Iterator[None]:
    """Be a node of the Ray at HOST:PORT while the block runs; no shard is ever put here.

    Raises `Unavailable` with Ray's last words when it does not let this host in.
    """
    check_reachable(address)
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command += ["--address", address, "--num-cpus", "0", "--num-gpus", "0"]
    command += ["--object-store-memory", str(_OBJECT_STORE_BYTES)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        _await_start(process, address)
        yield
    finally:
        _end(process)


def check_reachable(address: str) -> None:
    """Raise `Unavailable` where nothing listens at HOST:PORT: Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_REACH_TIMEOUT_S):
            pass
    except (OSError, ValueError) as error:
        raise Unavailable(f"cannot join Ray at {address}: {error}") from error


def _await_start(process: "subprocess.Popen[str]", address: str) -> None:
    assert process.stdout is not None
    last = "it says nothing"
    for line in process.stdout:
        if _STARTED in line:
            log.info("this host is a node of the Ray at %s", address)
            return
        last = line.strip() or last
    raise Unavailable(f"cannot join Ray at {address}: {last}")


def _end(process: "subprocess.Popen[str]") -> None:
    """End the node with all its processes, which are of its session."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.stdout is not None
    process.stdout.close()
