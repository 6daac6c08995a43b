"""Asks a decoder that is partly C++ in a process apart, with memory and time that end.

`python -m tests.fuzz.native TARGET SEED COUNT` prints the number of each case before it is tried, so that
whoever started it knows which one killed it.
"""

import random
import resource
import sys

from tests.fuzz.mutation import mutated
from tests.fuzz.targets import TARGETS

MEMORY_BYTES = 6 << 30
CPU_S = 120


def case(name: str, seed: int, number: int) -> bytes:
    """Return the bytes of a case; the same ones each time."""
    rng = random.Random(f"{name} {seed} {number}")
    return mutated(rng.choice(TARGETS[name].seeds()), rng)


def main() -> None:
    """Try the cases; the first that is a finding ends it with its traceback."""
    name, seed, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    TARGETS[name].seeds()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_S, CPU_S))
    for number in range(count):
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()
        TARGETS[name].check(case(name, seed, number))


if __name__ == "__main__":
    main()
