"""Certificates for tests, made once: one authority, and another that nobody trusts."""

import functools
import tempfile
from pathlib import Path

from deploy.certificates import make_certificates
from services.tls import Certificates, Party, TlsFiles


def folder(authority: str = "ours") -> Path:
    """Return a folder with a certificate for every party by this authority; it goes with the process."""
    return _made(authority)


@functools.cache
def _made(authority: str) -> Path:
    scratch = tempfile.TemporaryDirectory(prefix=f"{authority}-")
    _KEPT.append(scratch)
    make_certificates(Path(scratch.name))
    return Path(scratch.name)


def files(party: Party, authority: str = "ours") -> TlsFiles:
    return TlsFiles.in_folder(folder(authority), party.word)


def certificates(party: Party, authority: str = "ours") -> Certificates:
    return Certificates(files(party, authority))


_KEPT: list[tempfile.TemporaryDirectory[str]] = []
