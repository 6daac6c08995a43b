"""Secrets that the processes of a cluster share through the workspace."""

import secrets
from pathlib import Path


def write_secret(path: Path) -> None:
    """Put a new secret in the file, which only its owner can read."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
