"""What a bundle says about itself: `manifest.json`."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from shards.json_codec import from_json, parse, render, to_json
from shards.release import ModelVersion, Stage

MANIFEST_FILE = "manifest.json"
SIGNATURE_FILE = "signature.json"
"""Beside the manifest where somebody has signed it: `shards.signature`."""
FORMAT_VERSION = 1

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorSpec:
    """An input of a program; None in `shape` is a dimension that varies."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramSpec:
    """A torch.export program: its file, its keyword inputs and the names of its outputs in order."""

    file: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[str, ...]
    onnx_file: str = ""
    """The same program for ONNX Runtime, where that computed it faster on a CPU; empty where it did not."""

    def __post_init__(self) -> None:
        check_file_name(self.file)
        if self.onnx_file:
            check_file_name(self.onnx_file)

    @property
    def files(self) -> tuple[str, ...]:
        """Return the files that hold it."""
        return (self.file, self.onnx_file) if self.onnx_file else (self.file,)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileDigest:
    """What a file of the bundle must be."""

    sha256: str
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRange:
    """The time span of the data that training saw: [start, end)."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """Which part of a model's catalogue the bundle holds: items whose hash modulo `count` is `index`."""

    model: str
    index: int
    count: int
    catalogue_items: int
    """Items of the whole catalogue."""
    hash: str = "blake2b-64"

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(f"there is no partition {self.index} of {self.count}, counted from 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far a replica's scores may lie from the goldens: |a - b| <= atol + rtol * |b|."""

    rtol: float = 1e-4
    atol: float = 1e-5


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One version of a model, described so that a shard can serve it without the code that trained it."""

    name: str
    version: str
    stage: Stage
    engine: str
    """Which opener of `shards.servable` serves it: "two_tower", "lexical", "table" …"""
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Dimensions for the reader: "items", "embedding" …"""
    programs: Mapping[str, ProgramSpec] = field(default_factory=dict)
    tasks: tuple[str, ...] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    """Settings of the engine; each engine documents its own."""
    settings: tuple[str, ...] = ()
    """Settings of the recipe that it was trained with in place of the recipe's own: "path=value"."""
    full_version: str = ""
    """The version that a full update begins with, where tables alone learned since; empty: this one."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    tolerance: Tolerance = Tolerance()
    training_range: TrainingRange | None = None
    partition: Partition | None = None
    """None where the bundle holds the whole catalogue."""
    spec_hash: str = ""
    """`FeatureSpec.hash` of features.json and tokenizer.json; empty where the bundle has no features."""
    files: Mapping[str, FileDigest] = field(default_factory=dict)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        for what, name in (("name", self.name), ("version", self.version)):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{what} {name!r} must be letters, digits, '.', '_' or '-'")
        if self.format_version != FORMAT_VERSION:
            raise ValueError(f"format_version {self.format_version} is not {FORMAT_VERSION}")
        for file in self.files:
            check_file_name(file)

    @property
    def model_version(self) -> ModelVersion:
        """Return the name and version as one key."""
        return ModelVersion(self.name, self.version)

    def with_files(self, files: Mapping[str, FileDigest], spec_hash: str) -> "Manifest":
        """Return the manifest completed by what was written."""
        return replace(self, files=files, spec_hash=spec_hash)


def check_file_name(name: str) -> None:
    """Refuse with a ValueError a file name that is not a plain relative path inside the bundle."""
    parts = name.split("/")
    if any(part in ("", ".", "..") for part in parts) or "\\" in name or "\0" in name:
        raise ValueError(f"file name {name!r} is not a plain path inside the bundle")
    if PurePosixPath(name).is_absolute() or name in (MANIFEST_FILE, SIGNATURE_FILE):
        raise ValueError(f"file name {name!r} is not allowed")


def render_manifest(manifest: Manifest) -> bytes:
    """Return the bytes of manifest.json, which carry their own checksum."""
    document = to_json(manifest)
    return render(document | {"checksum": _checksum(document)})


def parse_manifest(data: bytes) -> Manifest:
    """Return the manifest in `data`; ValueError where a byte differs from what was written."""
    document = parse(data)
    if not isinstance(document, dict) or render(document) != data:
        raise ValueError("is not as Headrace writes it")
    checksum = document.pop("checksum", None)
    if checksum != _checksum(document):
        raise ValueError("does not match its own checksum")
    return from_json(Manifest, document, "manifest")


def _checksum(document: object) -> str:
    return hashlib.sha256(render(document)).hexdigest()
