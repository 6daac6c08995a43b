"""Attacks a router again and again: `python -m tests.soak.abuser HOST:PORT SEED`, a line of what each did."""

import random
import sys
import time

from tests.abuse.attacks import ATTACKS

_REST_S = 3.0


def main() -> None:
    """Attack until killed."""
    address, rng = sys.argv[1], random.Random(int(sys.argv[2]))
    while True:
        for name, attack in ATTACKS.items():
            try:
                said = attack(address, rng)
            except OSError as error:
                said = f"could not: {error}"
            sys.stdout.write(f"{name}: {said}\n")
            sys.stdout.flush()
            time.sleep(_REST_S)


if __name__ == "__main__":
    main()
