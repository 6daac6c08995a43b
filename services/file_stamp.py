"""Whether a file has changed since it was read."""

from pathlib import Path


def stamp_of(path: Path) -> tuple[int, int]:
    """Return what changes when a file is written or replaced; zeros for one that is not there."""
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_mtime_ns, status.st_ino
