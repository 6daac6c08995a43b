"""Threads share arenas in a process of its own, as glibc itself tells."""

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
from services.malloc_arenas import share_arenas

if sys.argv[1] == "shared":
    share_arenas()
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.fdopen.restype = ctypes.c_void_p, ctypes.c_void_p
together = threading.Barrier(8)

def take():
    libc.malloc(1000)
    together.wait()

threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.parametrize(("how", "arenas"), [("shared", {1, 2}), ("as ever", {8, 9})])
def test_threads_take_from_two_arenas(how: str, arenas: set[int]) -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    assert told.stdout.count("<heap nr=") in arenas
