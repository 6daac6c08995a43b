"""No attack ends a router, leaves memory or connections behind, or costs another caller an answer."""

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from deploy.settings import PROJECT_ROOT
from tests.abuse.attacks import ATTACKS, connections
from tests.abuse.bystander import Bystander

pytestmark = pytest.mark.timeout(600)

_FEWER = {"connections": partial(connections, count=3_000)}
"""What is done in CI; a soak does all of it."""

_MOST_GROWN_MB = 48
_MOST_IN_ALL_MB = 400


class Watched:
    """The process of a router, as the kernel sees it."""

    def __init__(self, process: "subprocess.Popen[str]", address: str) -> None:
        self.process = process
        self.address = address

    @property
    def resident_mb(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        raise AssertionError("the router is gone")

    @property
    def peak_mb(self) -> float:
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        raise AssertionError("the router is gone")

    @property
    def files(self) -> int:
        return len(list(Path(f"/proc/{self.process.pid}/fd").iterdir()))


@contextmanager
def router_process(folder: Path) -> Iterator[Watched]:
    errors = folder / "router.err"
    with errors.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.abuse.router_process", str(folder)],
            cwd=PROJECT_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
        )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield Watched(process, process.stdout.readline().strip())
        assert process.poll() is None, errors.read_text()[-2000:]
        assert "Traceback" not in errors.read_text()
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(30)


def until(condition: Callable[[], bool], what: str, within_s: float = 60.0) -> None:
    give_up = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up, what
        time.sleep(0.1)


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with router_process(tmp_path_factory.mktemp("router")) as watched:
        with Bystander(watched.address) as first:
            until(lambda: first.answered > 50, "it answers")
        yield watched


@pytest.mark.parametrize("name", ATTACKS)
def test_a_router_stands_it_and_others_are_answered(router: Watched, name: str) -> None:
    attack = _FEWER.get(name, ATTACKS[name])
    files = router.files
    with Bystander(router.address) as bystander:
        until(lambda: bystander.answered > 3, "it answers before")
        said = attack(router.address, random.Random(1))
        after_first_mb = router.resident_mb
        attack(router.address, random.Random(2))
        answered = bystander.answered
        until(lambda: bystander.answered > answered + 5, f"it answers after {said}")
    assert bystander.failures == [], said
    assert router.process.poll() is None
    until(lambda: router.files <= files + 2, f"{router.files} files are open, {files} were before {said}")
    grown_mb = router.resident_mb - after_first_mb
    assert grown_mb < _MOST_GROWN_MB, f"{said}: {grown_mb:.0f} MB more after the second time"
    assert router.peak_mb < _MOST_IN_ALL_MB, f"{said}: {router.peak_mb:.0f} MB"
