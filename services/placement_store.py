"""Where the committed placement is kept: one table, replaced by compare-and-set on its generation."""

import asyncio
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from services.durable_file import replace_file
from services.placement_json import placement_from_json, placement_to_json
from shards.placement import Placement


@dataclass(frozen=True, slots=True)
class Committed:
    """The store holds this placement now."""

    placement: Placement


@dataclass(frozen=True, slots=True)
class Conflict:
    """The placement has moved on; `current` is what the store holds instead."""

    current: Placement


class PlacementStore(Protocol):
    """One placement that several may read and replace."""

    async def read(self) -> Placement:
        """Return the placement; of generation 0 and empty when nothing was ever committed."""

    async def commit(self, expected_generation: int, placement: Placement) -> Committed | Conflict:
        """Replace the placement if its generation is the expected one.

        When it returns `Committed`, every later reader sees the new one, also after a crash (where the
        store outlives its process). Raises ValueError for a generation that is not above the expected one.
        """


class MemoryPlacementStore:
    """Lives as long as its process."""

    def __init__(self, placement: Placement | None = None) -> None:
        self._placement = placement or Placement()

    async def read(self) -> Placement:
        """Return the placement."""
        return self._placement

    async def commit(self, expected_generation: int, placement: Placement) -> Committed | Conflict:
        """Replace the placement if its generation is the expected one."""
        check_rises(expected_generation, placement)
        if self._placement.generation != expected_generation:
            return Conflict(self._placement)
        self._placement = placement
        return Committed(placement)


class FilePlacementStore:
    """Keeps the placement as JSON in one file; several processes on one host may share it.

    Raises `CorruptRecord`, which names the file, when it cannot be read: it is never taken for an empty
    one, because the generation must not go back. OSError, say of a full disk, leaves the old placement.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> Placement:
        """Return the placement."""
        return await asyncio.to_thread(self._read)

    async def commit(self, expected_generation: int, placement: Placement) -> Committed | Conflict:
        """Replace the placement if its generation is the expected one."""
        check_rises(expected_generation, placement)
        return await asyncio.to_thread(self._commit, expected_generation, placement)

    def _commit(self, expected_generation: int, placement: Placement) -> Committed | Conflict:
        with _locked(self._path.with_suffix(".lock")):
            current = self._read()
            if current.generation != expected_generation:
                return Conflict(current)
            replace_file(self._path, placement_to_json(placement))
        return Committed(placement)

    def _read(self) -> Placement:
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            return Placement()
        return placement_from_json(data, store="placement snapshot", key=str(self._path))


def check_rises(expected_generation: int, placement: Placement) -> None:
    """Refuse with ValueError a placement whose generation is not above the expected one."""
    if placement.generation <= expected_generation:
        raise ValueError(f"generation {placement.generation} is not above {expected_generation}")


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock file, so that reading and replacing are one step among processes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
