"""Ports for a cluster's processes, chosen before they start, so that each knows the others' in advance."""

import ipaddress
import socket
from contextlib import closing

from shards.errors import Unavailable


def claim_port(host: str, port: int) -> int:
    """Return a port on which nobody listens: this one, or any for 0.

    Raises `Unavailable` when the port is taken, also by somebody who shares it: routers of two clusters
    on one port would answer for each other.
    """
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise Unavailable(f"cannot listen on {host}:{port}: {error.strerror}") from error
        found: int = probe.getsockname()[1]
        return found


def is_loopback(host: str) -> bool:
    """Return whether only this host reaches what listens there; unknown names may be anything."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
