"""What `headrace doctor` finds: a line for each thing that it looks at, and what to do where it is bad."""

import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Literal

from shards.errors import HeadraceError

State = Literal["ok", "note", "broken"]
"""A note is nothing that keeps a cluster from serving."""

_LEAST_PYTHON = (3, 11)

_PACKAGES: tuple[tuple[str, str], ...] = (
    *((module, "serving") for module in ("grpc", "google.protobuf", "grpc_health", "grpc_reflection")),
    *((module, "serving") for module in ("numpy", "pyarrow", "torch", "onnxruntime", "ray", "tantivy")),
    *((module, "serving") for module in ("tokenizers", "lmdb", "redis", "consul", "prometheus_client")),
    ("faiss", "cluster"),
    *((module, "training") for module in ("onnx", "onnxscript", "optuna")),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing: what was found of it, and what to do."""

    subject: str
    state: State
    found: str
    advice: str = ""


Look = Callable[[], Iterator[Finding]]


def look_at(subject: str, look: Look) -> list[Finding]:
    """Return what a look finds; one that fails is itself a finding."""
    findings: list[Finding] = []
    try:
        findings.extend(look())
    except (HeadraceError, OSError, ValueError) as error:
        findings.append(broken(subject, str(error), "put right what the message names"))
    return findings


def ok(subject: str, found: str) -> Finding:
    """Return that all is well."""
    return Finding(subject=subject, state="ok", found=found)


def note(subject: str, found: str, advice: str = "") -> Finding:
    """Return what is worth knowing."""
    return Finding(subject=subject, state="note", found=found, advice=advice)


def broken(subject: str, found: str, advice: str) -> Finding:
    """Return what keeps a cluster from serving, or from serving well."""
    return Finding(subject=subject, state="broken", found=found, advice=advice)


def python_and_packages() -> Iterator[Finding]:
    """Look at Python and at what each kind of installation needs."""
    version = platform.python_version()
    if sys.version_info >= _LEAST_PYTHON:
        yield ok("python", version)
    else:
        yield broken("python", version, "run Headrace by Python 3.11 or newer")
    missing: dict[str, list[str]] = {}
    for module, extra in _PACKAGES:
        if not _installed(module):
            missing.setdefault(extra, []).append(module)
    for extra in ("serving", "cluster", "training"):
        absent = missing.get(extra, [])
        if not absent:
            continue
        found = f"{', '.join(absent)} cannot be imported"
        advice = f"pip install 'headrace[{'cluster' if extra == 'serving' else extra}]'"
        yield (note if extra == "training" else broken)("packages", found, advice)
    if not missing:
        yield ok("packages", ", ".join(f"{name} {_version(name)}" for name in ("torch", "ray", "grpcio")))


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # The package above it is missing.
        return False


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "without a version"
