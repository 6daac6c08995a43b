"""Writes down which release answered whom with what, and what users did, so that releases can be compared.

A line of JSON for each search and each event, in files of this router. Users are told by a digest, queries
not at all. Lines wait in memory for a second at most, off the path of a search; more than `_MOST_WAITING`, or
what a full disk refuses, is dropped and counted.
"""

import asyncio
import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from router.answer import Answer
from services.codec import SearchRequest
from services.user_history import UserEvent

log = logging.getLogger(__name__)

_FLUSH_S = 1.0
_MOST_WAITING = 20_000
_DIGEST_BYTES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeSettings:
    """Whether searches and events are written down, and how many files of which size stay."""

    on: bool = False
    file_mb: int = 64
    files: int = 4

    def __post_init__(self) -> None:
        if self.file_mb < 1 or self.files < 1:
            raise ValueError("file_mb and files must be at least 1")


class OutcomeLog:
    """Of one router, whose files are `<name>-<milliseconds>.jsonl` in the folder."""

    def __init__(
        self,
        folder: Path,
        name: str,
        settings: OutcomeSettings,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.dropped = 0
        self._folder = folder
        self._name = name
        self._settings = settings
        self._now_ms = now_ms
        self._lines: list[str] = []
        self._path: Path | None = None

    def searched(self, asked: SearchRequest, answer: Answer, *, pinned: bool) -> None:
        """Note an answer; `pinned` ones asked for their release by name."""
        self._add(
            {
                "kind": "search",
                "at_ms": self._now_ms(),
                "id": asked.request_id,
                "user": digest_of(asked.user_id),
                "surface": answer.release.surface,
                "release": answer.release.version,
                "pinned": pinned,
                "items": [item.item_id for item in answer.items],
            }
        )

    def recorded(self, events: Mapping[str, UserEvent]) -> None:
        """Note events by their ids."""
        for event_id, event in events.items():
            self._add(
                {
                    "kind": "event",
                    "at_ms": event.timestamp_ms,
                    "id": event_id,
                    "user": digest_of(event.user_id),
                    "item": event.item_id,
                    "action": event.action,
                    "search": event.search_id,
                }
            )

    async def run(self) -> None:
        """Write what waits until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_S)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits."""
        lines, self._lines = self._lines, []
        if lines:
            await asyncio.to_thread(self._write, lines)

    def _add(self, line: Mapping[str, object]) -> None:
        if len(self._lines) >= _MOST_WAITING:
            self.dropped += 1
            return
        self._lines.append(json.dumps(line, ensure_ascii=False, separators=(",", ":")))

    def _write(self, lines: Iterable[str]) -> None:
        text = "".join(f"{line}\n" for line in lines)
        try:
            with self._file().open("a", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            self.dropped += text.count("\n")
            log.warning("%d outcomes in all could not be written: %s", self.dropped, error.strerror)

    def _file(self) -> Path:
        """Return the file to append to: a new one where there is none yet, or it is full."""
        if self._path is None or self._path.stat().st_size >= self._settings.file_mb << 20:
            self._folder.mkdir(parents=True, exist_ok=True)
            own = sorted(self._folder.glob(f"{self._name}-*.jsonl"))
            for old in own[: max(0, len(own) + 1 - self._settings.files)]:
                old.unlink(missing_ok=True)
            self._path = self._folder / f"{self._name}-{self._now_ms():015d}.jsonl"
            self._path.touch()
        return self._path


def digest_of(user_id: str) -> str:
    """Return what stands for a user; empty for a visitor."""
    return hashlib.blake2b(user_id.encode(), digest_size=_DIGEST_BYTES).hexdigest() if user_id else ""
