"""A Ray of the cluster's own, as one of its processes: when a vital part of Ray dies, all of it ends."""

import contextlib
import logging
import math
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import ray

from deploy import child
from deploy.processes import adopt_orphans, descendants, end_children
from deploy.settings import ClusterSettings
from deploy.workspace import Workspace
from services.durable_file import replace_file
from services.shard_actor import NAMESPACE

log = logging.getLogger(__name__)

_OBJECT_STORE_BYTES = 100 * 2**20
"""Nothing of ours passes through Ray's object store; this is about its minimum."""

_VITAL = frozenset({"gcs_server", "raylet"})
_LOOK_EVERY_S = 0.5
_LONGEST_FOLDER = 40
"""Ray puts sockets some 62 characters below its folder, and Linux allows 107."""
_PREFIX = "headrace-"


def serve(settings: ClusterSettings, stop: threading.Event) -> None:
    """Run Ray until told to stop or until a vital part of it ends."""
    with _ray_folder(settings.folders) as folder:
        context = ray.init(
            address="local",
            namespace=NAMESPACE,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.WARNING,
            # Logical, and how many workers Ray starts at a time. Shards take `shard_cpus` of them: none,
            # unless told otherwise, so that there may be more shards later.
            num_cpus=max(settings.shards + 1, math.ceil(settings.shard_cpus * settings.shards)),
            num_gpus=None if settings.device.startswith("cuda") else 0,
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=str(folder),
        )
        # Ray has set a handler of its own, which knows nothing of this process's other duties.
        signal.signal(signal.SIGTERM, lambda _number, _frame: stop.set())
        vital = {process.pid for process in descendants(os.getpid()) if process.name in _VITAL}
        try:
            child.announce(context.address_info["address"])  # type: ignore[attr-defined]
            while not stop.wait(_LOOK_EVERY_S):
                alive = {p.pid for p in descendants(os.getpid()) if not p.zombie}
                if not vital <= alive:
                    log.error("a part of Ray has died, so all of it ends")
                    break
        finally:
            ray.shutdown()
            end_children()


@contextmanager
def _ray_folder(workspace: Workspace) -> Iterator[Path]:
    """Give a short new folder for Ray; clear up what a Ray of this workspace left when it was killed."""
    record = workspace.ray_record_path
    with contextlib.suppress(FileNotFoundError):
        _clear(Path(record.read_text()), workspace)
    base = tempfile.gettempdir()
    base = base if len(base) + len(_PREFIX) + 8 <= _LONGEST_FOLDER else "/tmp"
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    replace_file(record, str(folder).encode())
    try:
        yield folder
    finally:
        _clear(folder, workspace)
        record.unlink(missing_ok=True)


def _clear(folder: Path, workspace: Workspace) -> None:
    """Remove Ray's folder, but keep the logs: those of the shards are among them."""
    if not folder.name.startswith(_PREFIX) or not folder.is_dir():
        return
    kept = workspace.logs_dir / "ray"
    shutil.rmtree(kept, ignore_errors=True)
    for session in folder.glob("session_*/logs"):
        if not session.parent.is_symlink():
            shutil.copytree(session, kept, symlinks=True, dirs_exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Run Ray as the supervisor asks."""
    stop = threading.Event()

    def told(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, told)
    settings = child.enter()
    adopt_orphans()
    serve(settings, stop)


if __name__ == "__main__":
    main()
