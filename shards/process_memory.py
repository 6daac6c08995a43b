"""What this process uses of the host's and the GPU's memory, told so that bundles can be charged for it.

Resident memory says what the process costs its host, but not what a bundle adds: a bundle that fits into
pages which an earlier one left behind adds none, and unloading gives none back before `give_back_memory`.
So bundles are charged by what allocators have handed out and not got back, which re-used pages cannot hide:
glibc's malloc (torch, FAISS, numpy and tantivy take from it), Arrow's own pool, and Python's small objects.
"""

import ctypes
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import torch

from shards.memory_use import MemoryUse

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_PYTHON_BLOCK_BYTES = 100
"""Mean size of Python's small objects beside torch; Python tells no more than how many there are."""


def memory_in_use(device: str = "cpu") -> MemoryUse:
    """Return what allocators have handed out and not got back; the GPU's share is torch's."""
    taken = _malloc_bytes()
    host_bytes = anonymous_bytes() if taken is None else taken()
    # Without glibc resident memory stands in for all three.
    if taken is not None:
        host_bytes += pa.total_allocated_bytes() + sys.getallocatedblocks() * _PYTHON_BLOCK_BYTES
    gpu_bytes = torch.cuda.memory_allocated(device) if device.startswith("cuda") else 0
    return MemoryUse(host_bytes=host_bytes, gpu_bytes=gpu_bytes)


def resident_bytes() -> int:
    """Return the resident memory of this process, from Linux's `/proc/self/statm`."""
    return int(_statm()[1]) * _PAGE_BYTES


def anonymous_bytes() -> int:
    """Return the resident memory that no file backs: what would leak, without code and mapped files."""
    resident, shared = _statm()[1:3]
    return (int(resident) - int(shared)) * _PAGE_BYTES


def give_back_memory() -> None:
    """Give freed pages back to the system, which glibc keeps to itself."""
    libc = _libc()
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


class _MallInfo2(ctypes.Structure):
    """`struct mallinfo2` of glibc."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena",
            "ordblks",
            "smblks",
            "hblks",
            "hblkhd",
            "usmblks",
            "fsmblks",
            "uordblks",
            "fordblks",
            "keepcost",
        )
    ]


@functools.cache
def _malloc_bytes() -> Callable[[], int] | None:
    """Return what tells the bytes that malloc has handed out, None where the C library is not glibc."""
    libc = _libc()
    if not hasattr(libc, "mallinfo2"):
        return None
    libc.mallinfo2.restype = _MallInfo2

    def taken() -> int:
        info = libc.mallinfo2()
        # In the heaps of all threads, and in mappings of their own, as large arrays are.
        return int(info.uordblks) + int(info.hblkhd)

    return taken


@functools.cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None)


def _statm() -> list[bytes]:
    return Path("/proc/self/statm").read_bytes().split()
