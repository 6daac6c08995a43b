"""Folders outside any workspace, as the environment names them."""

import os
from pathlib import Path


def cache_dir() -> Path:
    """Return the folder for downloads: `$XDG_CACHE_HOME/headrace`, by default `~/.cache/headrace`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "headrace"
