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
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
