"""Wheels and sdists made of what git tracks, as `make dist` makes them."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from deploy.settings import PROJECT_ROOT

PACKAGES = ("protos", "shards", "services", "router", "training", "deploy")


def tracked(under: Path = PROJECT_ROOT) -> list[Path]:
    """Return the files that git tracks or would track, relative to the project's root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=under, capture_output=True, text=True, check=True).stdout
    return [Path(line) for line in listed.splitlines() if (under / line).is_file()]


def copied_to(folder: Path) -> Path:
    """Copy the project there, without what was built in it before; returns the folder."""
    for path in tracked():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PROJECT_ROOT / path, folder / path)
    return folder


def build(source: Path, out: Path, *options: str) -> None:
    """Build the archives of the source below `out`; RuntimeError with the last words of what failed."""
    command = [sys.executable, "-m", "build", *options, "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-2_000:])


def the_one(folder: Path, pattern: str) -> Path:
    """Return the only file of the folder that matches; ValueError where there are others."""
    (found,) = folder.glob(pattern)
    return found


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the bytes of every file of a wheel by its name."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
