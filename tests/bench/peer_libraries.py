"""Other libraries in a Python environment of their own, and what their processes use. Linux only."""

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deploy.settings import PROJECT_ROOT

PEERS = Path(__file__).parent / "peers"
ENVIRONMENT = PROJECT_ROOT / "build" / "peers"
_TORCH = "torch==2.13.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Used:
    """What a process took from its start to its end; memory is its peak of resident pages."""

    seconds: float
    processor_s: float
    peak_memory_bytes: int


def peers_python() -> Path:
    """Return the Python of the peers' environment, which is made where it is not there as required.

    Raises CalledProcessError where a package cannot be installed.
    """
    requirements = PEERS / "requirements.txt"
    wanted = hashlib.sha256(requirements.read_bytes() + _TORCH.encode()).hexdigest()
    python, installed = ENVIRONMENT / "bin" / "python", ENVIRONMENT / "installed"
    if not installed.exists() or installed.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(ENVIRONMENT)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, _TORCH], check=True)
        subprocess.run([*pip, "-r", str(requirements)], check=True)
        installed.write_text(wanted)
    return python


def used_by(command: Sequence[str], *, log: Path) -> Used:
    """Run a command on one thread to its end, and return what it took.

    Raises RuntimeError with the end of its log where it fails.
    """
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    started = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, env=os.environ | threads, stdout=output, stderr=output
        )
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {log.read_text()[-2000:]}")
    return Used(
        seconds=time.perf_counter() - started,
        processor_s=usage.ru_utime + usage.ru_stime,
        peak_memory_bytes=usage.ru_maxrss * 1024,
    )
