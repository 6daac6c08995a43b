"""`make fuzz`: every decoder for some seconds, led by coverage where atheris is installed.

`python -m tests.fuzz --seconds 60 [--only PREFIX]` asks the decoders in Python one after the other in
processes of their own, with the time divided among them, and the native ones without coverage. What is found
is printed, its input is written to build/fuzz, and the exit status is 1.
"""

import argparse
import importlib.util
import subprocess
import sys
import time
from pathlib import Path

from deploy.settings import PROJECT_ROOT
from tests.fuzz.targets import TARGETS

FOUND = PROJECT_ROOT / "build" / "fuzz"
_START_S = 60


def main() -> None:
    """Ask every decoder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    names = [name for name in TARGETS if name.startswith(options.only)]
    each_s = options.seconds / max(len(names), 1)
    FOUND.mkdir(parents=True, exist_ok=True)
    if importlib.util.find_spec("atheris") is None:
        sys.stderr.write("atheris is not installed: inputs are altered at random, without coverage\n")
    failed = [name for name in names if not _asked(name, each_s)]
    sys.stdout.write(f"{len(names)} decoders, {len(failed)} with findings: {', '.join(failed) or 'none'}\n")
    sys.exit(bool(failed))


def _asked(name: str, seconds: float) -> bool:
    """Return whether a decoder stood it."""
    began = time.monotonic()
    if TARGETS[name].native or importlib.util.find_spec("atheris") is None:
        count = max(20, round(seconds * 20))
        command = ["-m", "tests.fuzz.native", name, str(int(began)), str(count)]
    else:
        command = ["-m", "tests.fuzz.guided", name, f"{max(1, round(seconds))}"]
    done = subprocess.run(
        [sys.executable, *command],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=_START_S + 10 * seconds + 240,
        check=False,
    )
    outcome = "ok" if done.returncode == 0 else f"FOUND ({done.returncode})"
    sys.stdout.write(f"{name:32} {time.monotonic() - began:6.1f} s  {outcome}\n")
    if done.returncode:
        path = FOUND / f"{name.replace('/', '-').replace(' ', '-')}.txt"
        path.write_text(done.stdout[-4000:] + done.stderr[-8000:])
        sys.stdout.write(done.stderr[-1500:] + f"\nthe whole of it is in {Path(path)}\n")
    return done.returncode == 0


if __name__ == "__main__":
    main()
