"""Install what `make dist` built where nothing of it is, and use it: `make check-dist ARGS=--light`.

The sdist must give the same wheel; `pip install headrace` alone must be the client and no more; with the
extras of a cluster the demo must train, serve and print its searches, far from the source tree.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from pathlib import Path

from deploy.commands.demo import SEARCHES
from deploy.settings import PROJECT_ROOT
from tests.packaging.archives import build, contents, copied_to, the_one

DIST = PROJECT_ROOT / "dist"
_LIGHT = {"grpcio", "grpcio-status", "googleapis-common-protos", "headrace", "protobuf", "typing-extensions"}
_TORCH = "torch==2.13.0"
_CLIENT = "import sys, router.client; print(router.client.__file__, *sorted(router.client.__all__))"
_DEMO_S = 2_700.0


def main() -> None:
    """Check one thing after the other; raises what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--light", action="store_true", help="leave out the demo, which installs torch")
    asked = parser.parse_args()
    wheel = the_one(DIST, "headrace-*.whl")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        _step("the sdist gives the same wheel as the source", lambda: _same_wheel(wheel, Path(folder)))
        _step("the client needs grpcio and protobuf alone", lambda: _light(wheel, Path(folder) / "light"))
        if not asked.light:
            _step("the demo runs from the wheel", lambda: _demo(wheel, Path(folder) / "full"))


def _step(name: str, check: Callable[[], None]) -> None:
    began_s = time.monotonic()
    check()
    sys.stdout.write(f"ok  {name} ({time.monotonic() - began_s:.0f} s)\n")
    sys.stdout.flush()


def _same_wheel(wheel: Path, folder: Path) -> None:
    """`make dist` made the wheel from the sdist; one straight from the source must hold the same."""
    build(copied_to(folder / "source"), folder / "built", "--wheel")
    straight, through = (contents(each) for each in (the_one(folder / "built", "*.whl"), wheel))
    differing = {name for name in straight.keys() | through.keys() if straight.get(name) != through.get(name)}
    assert not differing, f"differ: {sorted(differing)}"


def _light(wheel: Path, folder: Path) -> None:
    python = _environment(folder)
    _run(python, "-m", "pip", "install", "--quiet", str(wheel))
    frozen = _run(python, "-m", "pip", "list", "--format", "freeze")
    named = [line.partition("==")[0] for line in frozen.splitlines() if "==" in line]
    installed = {name.lower().replace("_", "-") for name in named}
    extra = installed - _LIGHT - {"pip", "setuptools"}
    assert not extra, f"also installed: {sorted(extra)}"
    said = _run(python, "-c", _CLIENT, cwd=folder)
    assert said.startswith(str(folder)), said


def _demo(wheel: Path, folder: Path) -> None:
    python = _environment(folder)
    # torch goes first: a requirement resolved together with the others may pull another build of it.
    _run(python, "-m", "pip", "install", "--quiet", _TORCH)
    pins = PROJECT_ROOT / "constraints.txt"
    _run(python, "-m", "pip", "install", "--quiet", "-c", str(pins), f"{wheel}[cluster,training]")
    said = _run(python.parent / "headrace", "demo", "--exit", "--workspace", "shop", cwd=folder)
    for query, user_id in SEARCHES:
        asked = f"“{query}”" if query else "browsing"
        assert f"{asked} on movielens for user {user_id}" in said, said
    sys.stdout.write(said)


def _environment(folder: Path) -> Path:
    """Make an empty virtual environment; returns its Python."""
    venv.create(folder, with_pip=True)
    return folder / "bin" / "python"


def _run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command that knows nothing of this tree; returns what it prints, RuntimeError where it fails."""
    ours = ("PYTHON", "HEADRACE", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    with subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd or tempfile.gettempdir(),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, _ = process.communicate(timeout=_DEMO_S)
        except subprocess.TimeoutExpired:
            # With all that it started: a cluster, a training.
            os.killpg(process.pid, signal.SIGKILL)
            raise
    if process.returncode:
        raise RuntimeError(f"{command}: {said[-3_000:]}")
    return said


if __name__ == "__main__":
    main()
