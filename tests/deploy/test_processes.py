import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from deploy.ports import claim_port
from deploy.processes import descendants, processes, resident_bytes
from deploy.settings import PROJECT_ROOT
from shards.errors import Unavailable
from tests.deploy.running_cluster import alive, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("on", flush=True)
time.sleep(600)
"""


def python(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], cwd=PROJECT_ROOT, stdout=subprocess.PIPE, text=True
    )


def test_this_process_is_among_all_with_its_parent() -> None:
    (own,) = [process for process in processes() if process.pid == os.getpid()]
    assert own.parent_pid == os.getppid()
    assert not own.zombie
    assert resident_bytes(own.pid) > 2**20
    assert resident_bytes(2**22 + 1) == 0


def test_names_with_parentheses_are_read(tmp_path: Path) -> None:
    link = tmp_path / "a) S 1 (b"
    link.symlink_to("/bin/sleep")
    with subprocess.Popen([link, "600"]) as process:
        try:
            wait_until(lambda: any(p.name == link.name for p in descendants(os.getpid())))
        finally:
            process.kill()


def test_end_children_ends_orphans_and_the_stubborn_but_spares_families() -> None:
    code = f"""
import subprocess, sys
from deploy.processes import adopt_orphans, descendants, end_children
adopt_orphans()
stubborn = {STUBBORN!r}
nested = "import subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
spared = subprocess.Popen([sys.executable, "-c", nested, stubborn], stdout=subprocess.PIPE)
spared.stdout.readline()
orphaned = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]); sys.stdout.close()"
subprocess.run([sys.executable, "-c", orphaned, stubborn], check=True)
plain = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
plain.stdout.readline()
import os
before = len(descendants(os.getpid()))
end_children([spared.pid], patience_s=0.3)
after = descendants(os.getpid())
end_children(patience_s=0.1)
print(before, len(after), spared.pid in [p.pid for p in after], len(descendants(os.getpid())))
"""
    with python(code) as process:
        output, _ = process.communicate(timeout=60)
    assert output.splitlines()[-1] == "4 2 True 0"


def test_a_child_ends_with_its_parent_even_when_that_is_killed() -> None:
    child = """
import sys, time
from deploy.processes import die_with_parent
die_with_parent(int(sys.argv[1]))
print("on", flush=True)
time.sleep(600)
"""
    parent = f"""
import os, subprocess, sys
subprocess.run([sys.executable, "-c", {child!r}, str(os.getpid())])
"""
    with python(parent) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "on\n"
        family = descendants(process.pid)
        assert len(family) == 1
        process.send_signal(signal.SIGKILL)
        process.wait()
        wait_until(lambda: alive(family) == [], within_s=10)


def test_a_child_whose_parent_is_gone_already_does_not_start() -> None:
    code = "from deploy.processes import die_with_parent; die_with_parent(1); print('on')"
    with python(code) as process:
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")


def test_a_port_in_use_is_refused_also_when_it_is_shared() -> None:
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(
            Unavailable, match=rf"cannot listen on 127\.0\.0\.1:{port}: Address already in use"
        ):
            claim_port("127.0.0.1", port)
    assert claim_port("127.0.0.1", port) == port
    assert claim_port("127.0.0.1", 0) > 0
