"""One process of a cluster in the foreground, kept by systemd or Kubernetes instead of our supervisor."""

import asyncio
import signal
import sys

from deploy.child import Serve, until_told
from deploy.failures import unwrapped
from deploy.settings import ClusterSettings
from deploy.telemetry import process_name, telemetry
from services.grpc_waiting import wait_on_the_asking_thread
from services.process_log import log_to


def log_to_stderr(settings: ClusterSettings, role: str) -> None:
    """Send the log to standard error; standard output is for READY."""
    log_to(None, process=process_name(settings, role), as_json=telemetry(settings).logs.as_json)


def run(name: str, settings: ClusterSettings, serve: Serve) -> None:
    """Serve until SIGTERM or Ctrl-C, then stop gracefully; prints READY NAME=HOST:PORT when it serves."""

    def announce(address: str) -> None:
        sys.stdout.write(f"READY {name}={address}\n")
        sys.stdout.flush()

    wait_on_the_asking_thread()
    with unwrapped():
        asyncio.run(until_told(serve(settings, announce), ends=(signal.SIGTERM, signal.SIGINT)))
