"""How many arenas malloc takes memory from: what one frees others find, but each keeps what a burst left.

glibc makes up to eight for each core, one for each thread at first. In a process whose threads are those of
gRPC, thousands of connections at once leave their pages scattered over all of them.
"""

import ctypes

_M_ARENA_MAX = -8
"""Of glibc's `malloc.h`."""
_ARENAS = 2


def share_arenas() -> None:
    """Have all threads share two arenas, from now on; nothing where the C library is not glibc."""
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_ARENA_MAX, _ARENAS)
