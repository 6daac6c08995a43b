"""Encrypted connections: the certificates of a process, and the name that it expects at the other end.

All processes of a cluster have certificates of one authority, which signs for nobody else. A certificate
names the party that shows it ("router.headrace"), not the host it runs on: shards and controllers move.
Needs the light install only, as the Python client does.
"""

import enum
import logging
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio

from services.file_stamp import stamp_of

log = logging.getLogger(__name__)

AUTHORITY = "ca"
_SUFFIX, _KEY_SUFFIX = ".pem", "-key.pem"


class CertificateError(ValueError):
    """A file of certificates that cannot be used, and why."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path, self.problem = path, problem


class Party(enum.Enum):
    """Whom a certificate is for: the name in its subject alternative names."""

    ROUTER = "router.headrace"
    CONTROLLER = "controller.headrace"
    SHARD = "shard.headrace"
    OPERATOR = "operator.headrace"
    CLIENT = "client.headrace"

    @property
    def word(self) -> str:
        """Return the name of its files: "router"."""
        return self.name.lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: the authority whose certificates are believed, our own certificate and its key.

    Without a certificate of its own, a caller is known by its token alone.
    """

    ca_path: Path
    cert_path: Path | None = None
    key_path: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert_path is None) != (self.key_path is None):
            raise ValueError("a certificate and its key go together")

    @classmethod
    def in_folder(cls, folder: Path, word: str) -> Self:
        """Return the files in a folder as `headrace certs make` names them."""
        return cls(
            ca_path=folder / f"{AUTHORITY}{_SUFFIX}",
            cert_path=folder / f"{word}{_SUFFIX}",
            key_path=folder / f"{word}{_KEY_SUFFIX}",
        )

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the files that there are."""
        return tuple(path for path in (self.ca_path, self.cert_path, self.key_path) if path)

    def stamp(self) -> tuple[tuple[int, int], ...]:
        """Return what changes when a file does; zeros for one that is gone."""
        return tuple(stamp_of(path) for path in self.paths)


@dataclass(frozen=True, slots=True)
class Pem:
    """What the files hold."""

    authority: bytes
    key: bytes | None = field(default=None, repr=False)
    certificate: bytes | None = None


def read_certificates(files: TlsFiles) -> Pem:
    """Return what the files hold; raises `CertificateError` naming one that cannot be used."""
    held = {path: _read(path) for path in files.paths}
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=files.ca_path)
    except ssl.SSLError as error:
        raise _unusable(files.ca_path, "holds no certificate of an authority") from error
    if files.cert_path is None or files.key_path is None:
        return Pem(held[files.ca_path])
    try:
        context.load_cert_chain(files.cert_path, files.key_path, password=lambda: b"")
    except (ssl.SSLError, ValueError) as error:
        raise _unusable(files.cert_path, f"and {files.key_path} are no certificate and its key") from error
    return Pem(held[files.ca_path], held[files.key_path], held[files.cert_path])


class Certificates:
    """What the files of a process hold now: those that change are read when they are next needed.

    New ones that cannot be used are logged, and the old ones stay. Raises what `read_certificates` raises.
    """

    def __init__(self, files: TlsFiles) -> None:
        self._files = files
        self._stamp = files.stamp()
        self._pem = read_certificates(files)

    def current(self) -> Pem:
        """Return the newest that can be used; the same object while nothing has changed."""
        stamp = self._files.stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._pem = read_certificates(self._files)
                log.info("the new certificates in %s are used from now on", self._files.ca_path.parent)
            except CertificateError as error:
                log.error("the certificates from before stay in use: %s", error)
        return self._pem

    def server_credentials(self, *, mutual: bool) -> grpc.ServerCredentials:
        """Return the credentials of a port; with `mutual` only callers with a certificate get in."""
        given = self.current()

        def changed() -> Any:
            # gRPC asks at every handshake, from threads of its own.
            nonlocal given
            if self.current() is given:
                return None
            given = self.current()
            return _configuration(given)

        return grpc.dynamic_ssl_server_credentials(
            _configuration(given), changed, require_client_authentication=mutual
        )


def open_channel(
    target: str,
    certificates: Certificates | None,
    expected: str,
    *,
    options: Sequence[tuple[str, int | str]],
    interceptors: "Sequence[grpc.aio.ClientInterceptor]" = (),
) -> grpc.aio.Channel:
    """Return a channel to HOST:PORT; with certificates an encrypted one to who is `expected` there.

    An empty name expects the target's own host.
    """
    if certificates is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    pem = certificates.current()
    name = [("grpc.ssl_target_name_override", expected)] if expected else []
    return grpc.aio.secure_channel(
        target,
        grpc.ssl_channel_credentials(pem.authority, pem.key, pem.certificate),
        options=[*options, *name],
        interceptors=interceptors,
    )


def _configuration(pem: Pem) -> grpc.ServerCertificateConfiguration:
    assert pem.key is not None, "a server has a certificate and a key"
    assert pem.certificate is not None
    return grpc.ssl_server_certificate_configuration([(pem.key, pem.certificate)], pem.authority)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unusable(path, f"cannot be read: {error.strerror}") from error


def _unusable(path: Path, problem: str) -> CertificateError:
    return CertificateError(path, problem)
