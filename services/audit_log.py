"""What operators did to a cluster: a line of JSON for each, on the disk before it is answered."""

import json
import logging
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from services.durable_file import sync_folder

log = logging.getLogger(__name__)

MAX_BYTES, KEPT_FILES = 8 * 2**20, 8


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One call: when (RFC 3339, UTC), who from where, what with which request, and what came of it.

    `caller` is empty where nobody is asked who he is. `result` is "accepted", or the reason of its refusal;
    `detail` the operation's id, or what the caller was told.
    """

    at: str
    caller: str
    peer: str
    method: str
    request: Mapping[str, Any] = field(default_factory=dict)
    result: str
    detail: str = ""


class AuditLog:
    """Appends to a file, and begins a new one where it would become too large; thread-safe.

    The last ones before are kept as NAME.1, NAME.2 …, the newest first.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES, kept_files: int = KEPT_FILES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._kept_files = kept_files
        self._writing = threading.Lock()

    def append(self, entry: AuditEntry) -> None:
        """Bring an entry to the disk; one that cannot be written is logged, and stops nobody."""
        line = json.dumps(asdict(entry), ensure_ascii=False, sort_keys=True).encode() + b"\n"
        with self._writing:
            try:
                self._append(line)
            except OSError as error:
                log.error("not in the audit log: %s, by %r: %s", entry.method, entry.caller, error)

    def _append(self, line: bytes) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        new = not self.path.exists()
        if not new and self.path.stat().st_size + len(line) > self._max_bytes:
            self._rotate()
            new = True
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        with os.fdopen(descriptor, "r+b", buffering=0) as file:
            # What a crash cut short must not swallow the next line.
            size_bytes = file.seek(0, os.SEEK_END)
            cut_short = size_bytes > 0 and os.pread(descriptor, 1, size_bytes - 1) != b"\n"
            os.writev(descriptor, [b"\n", line] if cut_short else [line])
            os.fsync(descriptor)
        if new:
            sync_folder(self.path.parent)

    def _rotate(self) -> None:
        numbered = _files(self.path, self._kept_files + 1)
        numbered[-1].unlink(missing_ok=True)
        for older, newer in zip(reversed(numbered), list(reversed(numbered))[1:], strict=False):
            if newer.exists():
                newer.replace(older)


def read_audit(path: Path) -> Iterator[AuditEntry]:
    """Yield the entries of a log, oldest first; a line cut short by a crash is left out."""
    for file in reversed(_files(path, KEPT_FILES + 1)):
        if not file.exists():
            continue
        with file.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                try:
                    yield AuditEntry(**json.loads(line))
                except (ValueError, TypeError):
                    log.warning("a line of %s cannot be read", file)


def _files(path: Path, count: int) -> list[Path]:
    """Return the file and those before it, newest first."""
    return [path, *(path.with_name(f"{path.name}.{number}") for number in range(1, count))]
