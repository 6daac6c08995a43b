"""Programs that tests need: found here, or fetched from Debian and unpacked, which takes no rights."""

import contextlib
import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

_APT_SOURCES = Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list")
_RELEASES = "trixie", "bookworm"
_PORTS = range(20_000, 32_000)
"""Below the ports that Linux gives to connections, above those of Ray's workers."""


@dataclass(frozen=True, kw_only=True)
class Packaged:
    """A program, the packages that bring it, and the older suite that still has them, if it is not this one.

    `variable` names one of the host's own.
    """

    name: str
    variable: str
    packages: Sequence[str]
    suite: str = ""

    def program(self) -> Path:
        """Return the program; skips the test where there is none, but fails it in CI."""
        try:
            return self._find() or self._fetch()
        except (OSError, subprocess.SubprocessError) as error:
            if os.environ.get("CI") == "true":
                pytest.fail(f"no {self.name}: {error}")
            pytest.skip(f"no {self.name}: {error}; put one on PATH or name it in {self.variable}")

    def libraries(self, program: Path) -> dict[str, str]:
        """Return the variable by which a fetched program finds the libraries that came with it."""
        folder = _cache() / self.name
        if not program.is_relative_to(folder):
            return {}
        found = {str(path.parent) for path in (folder / "usr" / "lib").rglob("*.so*")}
        return {"LD_LIBRARY_PATH": os.pathsep.join(sorted(found))}

    def _find(self) -> Path | None:
        named = os.environ.get(self.variable, "")
        if named and not os.access(named, os.X_OK):
            raise FileNotFoundError(f"{self.variable}={named} is no program")
        found = named or shutil.which(self.name)
        return Path(found) if found else None

    def _fetch(self) -> Path:
        """Return the program of Debian's packages, unpacked into the cache folder once."""
        folder = _cache() / self.name
        program = folder / "usr" / "bin" / self.name
        if not program.exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f"{self.name}-") as work:
                unpacked = self._unpack(Path(work))
                try:
                    unpacked.replace(folder)
                except OSError:
                    # Another run was quicker; a folder without the program is nobody's.
                    if not program.exists():
                        raise
        return program

    def _unpack(self, work: Path) -> Path:
        """Download the packages with a copy of apt's own sources that names the suite; unpack them."""
        sources, lists, unpacked = work / "sources", work / "lists", work / self.name
        (lists / "partial").mkdir(parents=True)
        sources.mkdir()
        (installed,) = [path for path in _APT_SOURCES if path.is_file()][:1] or [_APT_SOURCES[0]]
        text = installed.read_text()
        for release in _RELEASES if self.suite else ():
            text = text.replace(release, self.suite)
        (sources / installed.name.replace("sources.list", "debian.list")).write_text(text)
        options = (
            f"-oDir::Etc::SourceParts={sources}",
            "-oDir::Etc::SourceList=/dev/null",
            f"-oDir::State::Lists={lists}",
            "-oAPT::Sandbox::User=root",
        )
        _run(work, "apt-get", *options, "update")
        _run(work, "apt-get", *options, "download", *self.packages)
        for package in work.glob("*.deb"):
            _run(work, "dpkg", "-x", str(package), str(unpacked))
        return unpacked


def _cache() -> Path:
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "headrace"


def _run(folder: Path, *command: str) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=180, check=False)
    if done.returncode:
        raise OSError(f"{command[0]}: {done.stderr.strip()[-500:]}")


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on now, and that the kernel gives to nobody who asks for any."""
    free: list[int] = []
    # Hypothesis seeds the common generator, for every worker of the tests alike.
    for port in random.SystemRandom().sample(_PORTS, len(_PORTS)):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            free.append(port)
        if len(free) == count:
            return free
    raise AssertionError(f"fewer than {count} of {_PORTS} are free")
