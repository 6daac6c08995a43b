"""One process of a cluster in the foreground, kept by systemd or Kubernetes instead of our supervisor."""

import asyncio
import logging
import signal
import sys

from deploy.child import LOG_FORMAT, Serve, until_told
from deploy.failures import unwrapped
from deploy.settings import ClusterSettings


def log_to_stderr() -> None:
    """Send the log to standard error; standard output is for READY."""
    logging.basicConfig(level=logging.INFO, format=LOG_FORMAT, stream=sys.stderr)
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def run(name: str, settings: ClusterSettings, serve: Serve) -> None:
    """Serve until SIGTERM or Ctrl-C, then stop gracefully; prints READY NAME=HOST:PORT when it serves."""

    def announce(address: str) -> None:
        sys.stdout.write(f"READY {name}={address}\n")
        sys.stdout.flush()

    with unwrapped():
        asyncio.run(until_told(serve(settings, announce), ends=(signal.SIGTERM, signal.SIGINT)))
