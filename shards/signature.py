"""Signatures of bundles: by Ed25519 (RFC 8032), of the manifest, which holds the digest of every file.

Whoever is given trusted keys opens only bundles that one of them has signed.
"""

import base64
import binascii
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shards.errors import FieldViolation, InvalidInput, UntrustedBundle
from shards.json_codec import from_json, parse, render, to_json
from shards.manifest import SIGNATURE_FILE

_ALGORITHM = "ed25519"
_CONTEXT = b"headrace bundle 1\n"
"""Signed before the manifest, so that a signature for something else is none for a bundle."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """What `signature.json` holds; the key and the signature in base64."""

    algorithm: str = _ALGORITHM
    public_key: str
    signature: str


def sign(manifest: bytes, key: Ed25519PrivateKey) -> bytes:
    """Return the bytes of signature.json for a bundle with this manifest."""
    signed = key.sign(_CONTEXT + manifest)
    return render(to_json(Signature(public_key=public_name(key), signature=_text(signed))))


def check_signature(folder: Path, manifest: bytes, trusted: Collection[str]) -> None:
    """Raise `UntrustedBundle` unless one of the trusted keys has signed this manifest; none trusts all."""
    if not trusted:
        return
    signature = _read(folder / SIGNATURE_FILE)
    if signature.public_key not in trusted:
        raise UntrustedBundle(SIGNATURE_FILE, f"is by the key {signature.public_key}, which is not trusted")
    try:
        key = Ed25519PublicKey.from_public_bytes(_bytes(signature.public_key))
        key.verify(_bytes(signature.signature), _CONTEXT + manifest)
    except (InvalidSignature, ValueError) as error:
        raise UntrustedBundle(SIGNATURE_FILE, "is not that of this manifest.json") from error


def public_name(key: Ed25519PrivateKey) -> str:
    """Return the public key in base64, as lists of trusted keys name it."""
    return _text(key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


def new_key() -> bytes:
    """Return a new private key as PEM."""
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(path: Path) -> Ed25519PrivateKey:
    """Return the private key in a PEM file; raises `InvalidInput` naming the file."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise InvalidInput(FieldViolation(str(path), "cannot be read as a private key")) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(FieldViolation(str(path), "is no Ed25519 key"))
    return key


def read_trusted_keys(path: Path) -> tuple[str, ...]:
    """Return the public keys in a file: a line each, in base64, a name behind it; # begins a comment.

    Raises `InvalidInput` naming the file and the line, also for a file without a key.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(FieldViolation(str(path), f"cannot be read: {error}")) from error
    words = {number: line.partition("#")[0].split() for number, line in enumerate(lines, 1)}
    found = {number: named[0] for number, named in words.items() if named}
    for number, name in found.items():
        try:
            Ed25519PublicKey.from_public_bytes(_bytes(name))
        except ValueError as error:
            raise InvalidInput(FieldViolation(f"{path}:{number}", "is no public key in base64")) from error
    if not found:
        raise InvalidInput(FieldViolation(str(path), "has no key: every bundle would be refused"))
    return tuple(dict.fromkeys(found.values()))


def _read(path: Path) -> Signature:
    if path.is_symlink() or not path.is_file():
        raise UntrustedBundle(SIGNATURE_FILE, "is missing, and only signed bundles are trusted here")
    try:
        signature = from_json(Signature, parse(path.read_bytes()))
    except (OSError, ValueError) as error:
        raise UntrustedBundle(SIGNATURE_FILE, f"cannot be read: {error}") from error
    if signature.algorithm != _ALGORITHM:
        raise UntrustedBundle(SIGNATURE_FILE, f"is of an unknown algorithm, {signature.algorithm!r}")
    return signature


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError("is not base64") from error
