"""What a console shows, and to whom."""

from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleSettings:
    """A cluster's addresses, HOST:PORT each, and what else a console is told.

    `operate` allows changes of a cluster that asks nobody for a token; one that does decides itself.
    `names` are the hosts by which browsers may ask for it; none: any. `workspace` is the folder of a cluster
    of this machine: its metrics are read, and releases that become live kept. `gate_report` is the file that
    `headrace gate report --out` wrote.
    """

    router: str
    controller: str
    operate: bool = False
    names: frozenset[str] = LOOPBACK_NAMES
    secure: bool = False
    """Whether browsers reach it by TLS alone, so that they never send its cookie in the clear."""
    workspace: Path | None = None
    gate_report: Path | None = None


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches what listens on the host."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
