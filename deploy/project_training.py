"""What a project's release was trained from, so that a changed file or changed data is noticed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deploy.project import Project
from services.durable_file import replace_file
from shards.json_codec import parse, render
from shards.release import Release

_SERVED = frozenset({"cluster"})
"""Sections that say how a release is served: nothing is trained by them."""

_TABLES = ("items", "users", "events", "queries")


def note_training(project: Project, release: Release, overrides: Sequence[str] = ()) -> None:
    """Write down what a release was trained from; `overrides` were set in place of the file's settings."""
    note = {
        "release": release.version,
        "file": _learned(project.document),
        "overrides": list(overrides),
        "data": _stamps(project.data_dir),
    }
    replace_file(_path(project), render(note))


def changes_since_training(project: Project) -> tuple[str, ...]:
    """Return what differs from what the project's release was trained from, one phrase each.

    Without a note, say of a release that was made by other means, nothing is known to differ.
    """
    try:
        note = parse(_path(project).read_bytes())
        before, data = dict(_leaves(note["file"])), dict(note["data"])
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    now = dict(_leaves(_learned(project.document)))
    changed = [
        f"{path} was {_shown(before, path)} and is {_shown(now, path)}"
        for path in sorted(before.keys() | now.keys())
        if before.get(path) != now.get(path)
    ]
    stamps = _stamps(project.data_dir)
    return (*changed, *(f"{name}.parquet is another" for name in _TABLES if stamps[name] != data.get(name)))


def _path(project: Project) -> Path:
    return project.workspace.training_dir / "project.json"


def _learned(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: section for name, section in document.items() if name not in _SERVED}


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Return the size and the time of change of each table; empty where there is none."""
    found = {}
    for name in _TABLES:
        path = folder / f"{name}.parquet"
        status = path.stat() if path.is_file() else None
        found[name] = [] if status is None else [status.st_size, status.st_mtime_ns]
    return found


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield the single settings of a document by path; a list counts as one."""
    if not isinstance(value, dict):
        yield path, value
        return
    for name, part in value.items():
        yield from _leaves(part, f"{path}.{name}" if path else name)


def _shown(settings: Mapping[str, object], path: str) -> str:
    return json.dumps(settings[path]) if path in settings else "not set"
