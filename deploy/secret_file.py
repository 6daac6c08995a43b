"""Secrets that the processes of a cluster share through the workspace."""

import secrets
from pathlib import Path


def write_secret(path: Path) -> None:
    """Put a new secret in the file, which only its owner can read."""
    path.unlink(missing_ok=True)
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))


def keep_secret(path: Path) -> None:
    """Leave the secret in the file as it is, or put a new one there."""
    if not path.exists() or not path.read_text():
        write_secret(path)
