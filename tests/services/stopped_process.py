"""Stops a child process, so that it stands still once this returns: SIGSTOP alone only asks for it."""

import os
import signal


def stop(pid: int) -> None:
    """Stop a child of this process with all of its threads."""
    os.kill(pid, signal.SIGSTOP)
    os.waitid(os.P_PID, pid, os.WSTOPPED)
