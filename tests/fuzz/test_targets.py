"""Only documented errors come out of a decoder, whatever goes in."""

import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploy.settings import PROJECT_ROOT
from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS

PURE = [name for name, target in TARGETS.items() if not target.native]
NATIVE = [name for name, target in TARGETS.items() if target.native]


@pytest.mark.parametrize("name", PURE)
@settings(max_examples=60)
@given(seed=st.integers(0, 2**32))
def test_altered_input_is_taken_or_refused(name: str, seed: int) -> None:
    rng = random.Random(seed)
    target = TARGETS[name]
    target.check(mutated(rng.choice(target.seeds() or [b""]), rng))


@pytest.mark.parametrize("name", PURE)
@settings(max_examples=30)
@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_taken_or_refused(name: str, data: bytes) -> None:
    TARGETS[name].check(data)


@pytest.mark.parametrize("name", NATIVE)
def test_native_decoders_neither_crash_nor_hang(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz.native", name, "1", "40"],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    last = done.stdout.splitlines()[-1:] or ["none"]
    assert done.returncode == 0, f"case {last[0]} of {name}: {done.returncode}\n{done.stderr[-2000:]}"
