"""What a console shows, and to whom."""

from dataclasses import dataclass
from pathlib import Path

from services.tls import TlsFiles

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
    tls: TlsFiles | None = None
    """What the console shows its cluster; whom that lets in, it lets in without a token."""
