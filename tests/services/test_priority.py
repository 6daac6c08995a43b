import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from services.priority import step_back

AUTOGROUP = Path("/proc/self/autogroup")
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has a priority for each thread")


def _niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@linux
def test_a_thread_steps_back_by_itself() -> None:
    before = _niceness()
    with ThreadPoolExecutor(1, initializer=step_back, initargs=(3,)) as threads:
        assert threads.submit(_niceness).result() == min(19, before + 3)
        threads.submit(step_back, 0).result()
        assert threads.submit(_niceness).result() == min(19, before + 3)
    assert _niceness() == before


@linux
def test_a_session_steps_back_with_all_its_threads() -> None:
    code = (
        "import os, threading\n"
        "from pathlib import Path\n"
        "from services.priority import session_steps_back\n"
        "session_steps_back(4)\n"
        "told = []\n"
        "thread = threading.Thread(target=lambda: told.append(os.getpriority(os.PRIO_PROCESS, 0)))\n"
        "thread.start(), thread.join()\n"
        "group = Path('/proc/self/autogroup')\n"
        "print(told[0], group.read_text().split()[-1] if group.exists() else 4)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, start_new_session=True
    )
    thread, session = done.stdout.split()
    assert int(thread) == min(19, _niceness() + 4)
    assert int(session) == 4
