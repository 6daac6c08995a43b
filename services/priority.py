"""Priorities, by which Linux shares processors; elsewhere nothing happens."""

import contextlib
import os
import sys
import threading
from pathlib import Path

_NICEST = 19


def step_back(niceness: int) -> None:
    """Let this thread give way to others from now on; nobody may raise a priority again that was lowered.

    Each step leaves a thread four fifths of what it had beside one that it competes with.
    """
    if niceness and sys.platform == "linux":
        thread = threading.get_native_id()
        nice = min(_NICEST, os.getpriority(os.PRIO_PROCESS, thread) + niceness)
        os.setpriority(os.PRIO_PROCESS, thread, nice)


def session_steps_back(niceness: int) -> None:
    """Let this thread, those that it starts, and its session give way to others.

    With automatic groups, as desktops have them, Linux shares processors among sessions first, and what
    threads of one do counts only among themselves.
    """
    step_back(niceness)
    if niceness and sys.platform == "linux":
        with contextlib.suppress(OSError):  # A kernel without such groups, or another user's session.
            Path("/proc/self/autogroup").write_text(str(niceness))
