"""The last known placement on disk, so that a router starts and serves while the controller is gone."""

import asyncio
import logging
from pathlib import Path

from services.durable_file import replace_file
from services.placement_json import placement_to_json
from services.placement_store import FilePlacementStore
from shards.errors import CorruptRecord
from shards.placement import Placement

log = logging.getLogger(__name__)


async def write_cache(path: Path, placement: Placement) -> None:
    """Replace the file, whatever it holds; one that cannot be written must not stop a router that serves."""
    try:
        await asyncio.to_thread(replace_file, path, placement_to_json(placement))
    except OSError as error:
        log.warning("%s is not written: %s", path, error)


async def read_cache(path: Path) -> Placement | None:
    """Return the placement of the file, or None where there is none that can be read."""
    try:
        placement = await FilePlacementStore(path).read()
    except (CorruptRecord, OSError) as error:
        log.warning("%s is ignored: %s", path, error)
        return None
    return placement if placement != Placement() else None
