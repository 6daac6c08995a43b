"""Files that survive a crash: a reader sees the old content or the new one, whole."""

import os
import threading
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Replace the file's content in one step and bring it to the disk; makes missing folders.

    Raises OSError that names the file, say on a full disk; then the old content is still there and nothing
    else is.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        # The kernel's own words for a full disk name no file.
        error.filename = error.filename or str(path)
        raise
    finally:
        partial.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring what the folder names to the disk, so that a rename in it survives a crash."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
