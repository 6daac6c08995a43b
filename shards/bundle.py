"""A bundle on disk: written whole or not at all, opened only if every byte is as written.

    <root>/<name>/<version>/
      manifest.json   `shards.manifest`; lists every other file with its size and sha256
      signature.json  who vouches for the manifest, where somebody does: `shards.signature`
      features.json   the FeatureSpec, where the engine encodes features
      tokenizer.json  the tokeniser, where a feature reads tokens
      …               programs, indexes, items.parquet, golden.npz: the engine's own

Whoever lists bundles skips names that start with ".": folders that are being written.
"""

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shards.errors import CorruptBundle, MismatchedBundle
from shards.features import FEATURES_FILE, FeatureSpec
from shards.manifest import (
    MANIFEST_FILE,
    SIGNATURE_FILE,
    FileDigest,
    Manifest,
    ProgramSpec,
    parse_manifest,
    render_manifest,
)
from shards.pace import no_rest
from shards.release import ModelVersion
from shards.signature import check_signature
from shards.tokenizer import TOKENIZER_FILE, Tokenizer

if TYPE_CHECKING:  # Bundles are also read where there is no torch.
    from shards.program import ProgramReader


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A verified bundle."""

    path: Path
    manifest: Manifest
    spec: FeatureSpec | None = None
    tokenizer: Tokenizer | None = None
    read_program: "ProgramReader | None" = None
    """Reads its programs for this process; None where the process shall do that itself."""
    rest: Callable[[], None] = no_rest
    """Called between the steps of opening it, where others serve meanwhile."""

    def file(self, name: str) -> Path:
        """Return the path of a file; MismatchedBundle where the bundle has none of this name."""
        if name not in self.manifest.files:
            raise MismatchedBundle(name, f"is not in the bundle, which engine {self.manifest.engine!r} needs")
        return self.path / name

    def program(self, name: str) -> ProgramSpec:
        """Return a program's description; MismatchedBundle where the manifest has none of this name."""
        if name not in self.manifest.programs:
            raise MismatchedBundle(MANIFEST_FILE, f"has no program {name!r}")
        return self.manifest.programs[name]


def write_bundle(root: Path, manifest: Manifest, fill: Callable[[Path], None]) -> Path:
    """Write a bundle whose files `fill` puts into the folder it is given; return its final path.

    The manifest's `files` and `spec_hash` are filled in here. Raises FileExistsError where the
    version exists, as versions never change, and whatever `fill` or the disk raises; nothing is
    left behind then.
    """
    path = root / manifest.name / manifest.version
    if path.exists():
        raise _already_exists(path)
    root.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".writing-{manifest.name}-", dir=root))
    try:
        folder.chmod(0o755)
        fill(folder)
        spec, tokenizer = _read_features(folder)
        digests = {name: _digest(folder / name) for name in _list_files(folder)}
        complete = manifest.with_files(digests, _spec_hash(spec, tokenizer))
        _check_programs(complete)
        (folder / MANIFEST_FILE).write_bytes(render_manifest(complete))
        _flush(folder)
        _publish(folder, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return path


def open_bundle(path: Path, expect: ModelVersion | None = None, trusted: Collection[str] = ()) -> Bundle:
    """Return the bundle at `path` after checking every byte of it.

    CorruptBundle names a file that is missing, unlisted, truncated, altered or no plain file;
    MismatchedBundle says where the bundle is not `expect` or its features are not the manifest's, and
    UntrustedBundle that none of the `trusted` keys has signed it.
    """
    described = _manifest_bytes(path)
    check_signature(path, described, trusted)
    manifest = _parsed(described)
    if expect is not None and manifest.model_version != expect:
        raise MismatchedBundle(MANIFEST_FILE, f"describes {manifest.model_version}, not {expect}")
    _check_files(path, manifest.files)
    _check_programs(manifest)
    spec, tokenizer = _read_features(path)
    if _spec_hash(spec, tokenizer) != manifest.spec_hash:
        raise MismatchedBundle(FEATURES_FILE, "is not the FeatureSpec whose hash the manifest holds")
    return Bundle(path=path, manifest=manifest, spec=spec, tokenizer=tokenizer)


def read_manifest(path: Path) -> Manifest:
    """Return the manifest of the bundle at `path`, no other file checked; CorruptBundle where it is none."""
    return _parsed(_manifest_bytes(path))


def _manifest_bytes(path: Path) -> bytes:
    try:
        return (path / MANIFEST_FILE).read_bytes()
    except OSError as error:
        raise CorruptBundle(MANIFEST_FILE, f"cannot be read: {error.strerror} ({path})") from error


def _parsed(described: bytes) -> Manifest:
    try:
        return parse_manifest(described)
    except ValueError as error:
        raise CorruptBundle(MANIFEST_FILE, str(error)) from error


def _read_features(folder: Path) -> tuple[FeatureSpec | None, Tokenizer | None]:
    spec_path, tokenizer_path = folder / FEATURES_FILE, folder / TOKENIZER_FILE
    try:
        tokenizer = Tokenizer.open(tokenizer_path) if tokenizer_path.exists() else None
    except ValueError as error:
        raise CorruptBundle(TOKENIZER_FILE, str(error)) from error
    try:
        spec = FeatureSpec.from_bytes(spec_path.read_bytes()) if spec_path.exists() else None
    except ValueError as error:
        raise CorruptBundle(FEATURES_FILE, str(error)) from error
    if spec and spec.needs_tokenizer and tokenizer is None:
        raise MismatchedBundle(TOKENIZER_FILE, "is missing, and a feature reads tokens")
    return spec, tokenizer


def _spec_hash(spec: FeatureSpec | None, tokenizer: Tokenizer | None) -> str:
    return spec.hash(tokenizer) if spec else ""


def _check_programs(manifest: Manifest) -> None:
    for name, program in manifest.programs.items():
        for file in program.files:
            if file not in manifest.files:
                raise MismatchedBundle(MANIFEST_FILE, f"program {name!r} is in {file}, which is not here")


def _check_files(path: Path, files: Mapping[str, FileDigest]) -> None:
    present = _list_files(path)
    for name in sorted(set(present) - set(files)):
        raise CorruptBundle(name, "is not listed in manifest.json")
    for name in sorted(set(files) - set(present)):
        raise CorruptBundle(name, "is missing")
    for name, expected in files.items():
        try:
            actual = _digest(path / name)
        except OSError as error:
            raise CorruptBundle(name, f"cannot be read: {error.strerror}") from error
        if actual.size_bytes != expected.size_bytes:
            raise CorruptBundle(name, f"has {actual.size_bytes} bytes, not {expected.size_bytes}")
        if actual.sha256 != expected.sha256:
            raise CorruptBundle(name, "has been altered: its sha256 is not the manifest's")


def _list_files(folder: Path) -> list[str]:
    """Return the files but the manifest and its signature; links and special files are CorruptBundle."""
    names = []
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise CorruptBundle(name, "is not a plain file")
        if path.is_file() and name not in (MANIFEST_FILE, SIGNATURE_FILE):
            names.append(name)
    return names


def _digest(path: Path) -> FileDigest:
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        return FileDigest(sha256=sha256, size_bytes=file.tell())


def _flush(folder: Path) -> None:
    """Bring every file and folder to the disk, so that the rename cannot outrun what it publishes."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _publish(folder: Path, path: Path) -> None:
    """Rename `folder` to `path`; of several writers the first wins, as a full folder is never replaced."""
    path.parent.mkdir(exist_ok=True)
    try:
        folder.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise _already_exists(path) from error
        raise
    for changed in (path.parent, path.parent.parent):
        descriptor = os.open(changed, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _already_exists(path: Path) -> FileExistsError:
    return FileExistsError(errno.EEXIST, "a version of a model never changes; write a new one", str(path))
