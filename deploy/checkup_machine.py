"""What `headrace doctor` looks at of the machine: cores, memory, disk and GPU."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from deploy.checkup import Finding, broken, note, ok
from deploy.checkup_project import bundle_bytes
from deploy.settings import ClusterSettings, memory_bytes

_GIB = 2**30
_LEAST_FREE_DISK = 1 * _GIB
_ENOUGH_FREE_DISK = 5 * _GIB
_PROCESS_BYTES = 350 * 2**20
"""About what a process that serves holds beside its models."""
_LIBRARY_TIMEOUT_S = 120.0

_LIBRARIES = """
import json, torch, faiss
print(json.dumps({
    "torch": torch.__version__, "cuda": torch.cuda.is_available(),
    "devices": [torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())],
    "faiss": faiss.__version__, "faiss_gpus": faiss.get_num_gpus() if hasattr(faiss, "get_num_gpus") else 0,
}))
"""


def machine(settings: ClusterSettings) -> Iterator[Finding]:
    """Look at cores, memory and disk."""
    cores = len(os.sched_getaffinity(0))
    if cores < 2:
        yield note("cores", f"{cores}", "searches wait for each other on one core; two or more are better")
    else:
        yield ok("cores", f"{cores}")
    yield _disk(settings.folders.root)
    yield _memory(settings)


def _memory(settings: ClusterSettings) -> Finding:
    free, whole = _available_bytes(), memory_bytes()
    processes = settings.shards + settings.routers + settings.controllers + 1
    needed = settings.replicas * bundle_bytes(settings.folders) + processes * _PROCESS_BYTES
    found = f"{_gib(free)} free of {_gib(whole)}; {settings.shards} shards need about {_gib(needed)}"
    if settings.folders.claimed() or needed <= free:
        return ok("memory", found)
    return broken("memory", found, "set fewer replicas or shards, say cluster.shards = 1, or free memory")


def _disk(folder: Path) -> Finding:
    there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    found = f"{_gib(free)} free for {folder}"
    if free < _LEAST_FREE_DISK:
        return broken("disk", found, "free 1 GiB at least: bundles and the user store would not fit")
    if free < _ENOUGH_FREE_DISK:
        return note("disk", found, "remove models of releases that are past: each takes room")
    return ok("disk", found)


def gpu(settings: ClusterSettings) -> Iterator[Finding]:
    """Look whether torch and FAISS can use a GPU, in a process that may crash."""
    wanted = settings.device.startswith("cuda")
    done = subprocess.run(
        [sys.executable, "-c", _LIBRARIES],
        capture_output=True,
        text=True,
        timeout=_LIBRARY_TIMEOUT_S,
        check=False,
    )
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        yield broken("gpu", f"torch and faiss cannot be loaded: {reason}", "pip install 'headrace[cluster]'")
        return
    said = json.loads(done.stdout)
    has = f"torch {said['torch']}, faiss {said['faiss']}"
    if said["cuda"]:
        yield ok("gpu", f"{', '.join(said['devices'])}; {has}")
        if not said["faiss_gpus"]:
            advice = "indexes are searched on the CPU; pip install 'headrace[gpu]' in place of [cluster]"
            yield note("gpu", "this faiss knows no GPU", advice)
    elif wanted:
        advice = 'install a CUDA build of torch and a driver, or set cluster.device = "cpu"'
        yield broken("gpu", f"device is {settings.device} and torch finds no GPU; {has}", advice)
    else:
        yield ok("gpu", f"none, and none is asked for; {has}")


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return min(int(line.split()[1]) * 1024, memory_bytes())
    return memory_bytes()


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / _GIB:.1f} GiB"
