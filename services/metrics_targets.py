"""Where processes are scraped, as each notes it: files of Prometheus's file-based service discovery.

Each is `[{"targets": ["HOST:PORT"], "labels": {"role": …, "process": …}}]`.
"""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

from services.durable_file import replace_file

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A process that can be scraped at HOST:PORT."""

    role: str
    process: str
    address: str


def note_target(folder: Path, target: Target) -> None:
    """Write down where a process is scraped; where that cannot be written, nobody finds it."""
    labels = {"role": target.role, "process": target.process}
    path = _path(folder, target.process)
    try:
        replace_file(path, json.dumps([{"targets": [target.address], "labels": labels}]).encode() + b"\n")
    except OSError as error:
        log.error("%s cannot be written, so that nobody finds the metrics: %s", path, error.strerror)


def forget_target(folder: Path, process: str) -> None:
    """Remove the note of a process that ends."""
    _path(folder, process).unlink(missing_ok=True)


def metrics_targets(folder: Path) -> tuple[Target, ...]:
    """Return the processes that have noted where they are, by name; one that was killed may be among them."""
    found = []
    for path in sorted(folder.glob("*.json")):
        for noted in json.loads(path.read_text()):
            labels = noted["labels"]
            target = Target(role=labels["role"], process=labels["process"], address=noted["targets"][0])
            found.append(target)
    return tuple(found)


def _path(folder: Path, process: str) -> Path:
    return folder / f"{process}.json"
