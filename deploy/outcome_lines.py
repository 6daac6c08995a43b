"""Searches and events as routers wrote them down, a line at a time; `router.outcome_log` writes them."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]
"""A search or an event, as `kind` says."""

_SEARCH = {
    **{"at_ms": int, "id": str, "user": str, "surface": str, "release": str},
    **{"pinned": bool, "items": list},
}
_EVENT = {"at_ms": int, "id": str, "user": str, "item": str, "action": str, "search": str}


def read_lines(folder: Path) -> Iterator[Line | None]:
    """Yield the lines of a folder's files; None for one that is neither a search nor an event."""
    for path in sorted(folder.glob("*.jsonl")):
        # A router may let its oldest file go meanwhile.
        with suppress(FileNotFoundError), path.open(encoding="utf-8", errors="replace") as file:
            yield from map(_line, file)


def _line(text: str) -> Line | None:
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(told, dict):
        return None
    match told.get("kind"):
        case "search" if _has(told, _SEARCH) and all(isinstance(item, str) for item in told["items"]):
            return told
        case "event" if _has(told, _EVENT):
            return told
    return None


def _has(told: Mapping[str, object], fields: Mapping[str, type]) -> bool:
    return all(isinstance(told.get(name), kind) for name, kind in fields.items())
