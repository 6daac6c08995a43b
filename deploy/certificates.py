"""A small authority and its certificates, for trying and for tests; companies have their own."""

import datetime
import ipaddress
import os
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from services.tls import AUTHORITY, Party, TlsFiles
from shards.errors import FieldViolation, InvalidInput

CA_DAYS, DAYS = 3650, 365

_BACKDATED = datetime.timedelta(minutes=5)
"""Clocks of hosts differ."""

_SERVERS = frozenset({Party.ROUTER, Party.CONTROLLER, Party.SHARD})


@dataclass(frozen=True, slots=True)
class _Authority:
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey


def make_certificates(
    folder: Path,
    *,
    hosts: Sequence[str] = (),
    parties: Iterable[Party] = tuple(Party),
    days: int = DAYS,
) -> list[Path]:
    """Write a certificate and a key for each party, by the folder's authority; returns the certificates.

    An authority that is there already signs again, so that what it signed before stays good; else one is
    made, with its key in `ca-key.pem`. Routers are also known by the names and addresses of `hosts`. Raises
    `InvalidInput` for an authority that cannot be read, and OSError where nothing can be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = TlsFiles.in_folder(folder, AUTHORITY)
    assert files.key_path is not None
    authority = (
        _read_authority(files.ca_path, files.key_path)
        if files.ca_path.exists()
        else _new_authority(files.ca_path, files.key_path)
    )
    return [_issue(authority, folder, party, hosts, days) for party in parties]


def _new_authority(path: Path, key_path: Path) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"headrace authority {secrets.token_hex(4)}")])
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _described(name, name, key, CA_DAYS)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(key, hashes.SHA256())
    )
    _write_key(key_path, key)
    _write(path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return _Authority(certificate, key)


def _read_authority(path: Path, key_path: Path) -> _Authority:
    try:
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError, TypeError) as error:
        problem = f"and {path.name} are no authority that can sign: {error}"
        raise InvalidInput(FieldViolation(str(key_path), problem)) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise InvalidInput(FieldViolation(str(key_path), f"is not the key of {path.name}, as made by us"))
    return _Authority(certificate, key)


def _issue(authority: _Authority, folder: Path, party: Party, hosts: Sequence[str], days: int) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, party.value)])
    names = [party.value]
    if party is Party.ROUTER:
        names += ["localhost", "127.0.0.1", "::1", *hosts]
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if party in _SERVERS:
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
    certificate = (
        _described(subject, authority.certificate.subject, key, days)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .sign(authority.key, hashes.SHA256())
    )
    files = TlsFiles.in_folder(folder, party.word)
    assert files.cert_path is not None
    assert files.key_path is not None
    _write_key(files.key_path, key)
    _write(files.cert_path, certificate.public_bytes(serialization.Encoding.PEM), mode=0o644)
    return files.cert_path


def _described(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _BACKDATED)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write_key(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _write(path, encoded, mode=0o600)


def _write(path: Path, content: bytes, *, mode: int) -> None:
    """Replace the file at once; nobody else may read a key for even a moment."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
