"""`python -m tests.chaos --seed N [--requests N] [--only NAME,…]`: scenarios until one loses a search."""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
from pathlib import Path
from typing import TextIO

from deploy.processes import adopt_orphans, end_children
from tests.chaos.round import Report, Rounds, run
from tests.chaos.scenarios import KINDS


def say(line: str) -> None:
    """Tell how it goes on standard error; standard output is for the figures."""
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def main() -> int:
    """Run, print the figures as JSON, leave no process behind; 1 when a search was lost."""
    asked = _arguments().parse_args()
    output = _own_output()
    seed = random.SystemRandom().randrange(10**6) if asked.seed is None else asked.seed
    adopt_orphans()
    # An exception, so that everything is taken down on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        # Ray's sockets need a short path; what is here is of use only while the run can be asked about.
        with tempfile.TemporaryDirectory(prefix="chaos-", ignore_cleanup_errors=True) as scratch:
            rounds = Rounds(
                seed=seed,
                folder=Path(scratch),
                requests=asked.requests,
                only=tuple(filter(None, asked.only.split(","))),
                shards=3 if asked.short else 4,
                nodes=2 if asked.short else 3,
                moves=10 if asked.short else 50,
                rate=asked.rate,
                # Tests share the machine with others.
                most_rate=40.0 if asked.short else 250.0,
                keep_going=asked.keep_going,
            )
            report = run(rounds, say)
    finally:
        end_children()
    with output:
        output.write(json.dumps(report.to_json(), indent=2) + "\n")
    return 0 if _good(report) else 1


def _own_output() -> TextIO:
    """Return standard output for the figures alone; Ray, which prints there too, gets standard error."""
    output = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return output


def _good(report: Report) -> bool:
    return not report.error and not report.lost


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="what is drawn; default: any, and said")
    parser.add_argument("--requests", type=int, default=0, help="go on until so many searches were answered")
    names = ", ".join(kind.name for kind in KINDS)
    parser.add_argument("--only", default="", help=f"scenarios of the first round, of {names}")
    parser.add_argument("--short", action="store_true", help="a smaller cluster and fewer moves")
    parser.add_argument("--rate", type=float, default=0.0, help="searches a second; 0 finds a bearable rate")
    parser.add_argument("--keep-going", action="store_true", help="go on after a lost search")
    return parser


if __name__ == "__main__":
    sys.exit(main())
