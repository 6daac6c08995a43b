"""What shards promise, in one table: `make bench-shards` writes `build/bench/shards.json`.

Every part can be run alone: `python -m tests.bench.shards --only planner,residency`.
"""

import argparse
import asyncio
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import chaos, many_models, planner, refusals, residency
from tests.bench.result import Check, at_least, publish

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part of the benchmark: what it measures, and the aims that its figures are held to."""

    name: str
    measure: Callable[[], Figures]
    checks: Callable[[Figures], list[Check]]


def _residency() -> Figures:
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        return asyncio.run(residency.measure(Path(folder), bundles=42, windows=15, cycles=200))


PARTS = (
    Part(name="planner", measure=planner.measure, checks=planner.checks),
    Part(name="many-models", measure=many_models.measure, checks=many_models.checks),
    Part(name="residency", measure=_residency, checks=residency.checks_of),
    Part(name="refusals", measure=refusals.measure, checks=refusals.checks),
    Part(name="chaos", measure=chaos.measure, checks=chaos.checks),
)


def main() -> int:
    """Run the parts that are asked for; 1 where a figure misses its aim."""
    known = {part.name: part for part in PARTS}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(known), help=f"of {', '.join(known)}")
    wanted = parser.parse_args().only.split(",")
    if unknown := set(wanted) - known.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    return run([known[name] for name in wanted])


def run(parts: Sequence[Part]) -> int:
    """Run parts one after the other; one that breaks off misses its aim and leaves the others alone."""
    figures: Figures = {}
    checks: list[Check] = []
    for part in parts:
        sys.stderr.write(f"{part.name} …\n")
        started = time.perf_counter()
        try:
            figures[part.name] = part.measure()
            checks += part.checks(figures[part.name])
        except Exception:
            traceback.print_exc()
            checks.append(at_least(f"{part.name} ran to its end", 0, 1))
        sys.stderr.write(f"{part.name} took {time.perf_counter() - started:.0f} s\n")
    publish("shards", settings={"parts": [part.name for part in parts]}, figures=figures, checks=checks)
    return 0 if all(check.ok for check in checks) else 1


if __name__ == "__main__":
    sys.exit(main())
