"""Searches lost while faults and operations happen to a cluster: part of `make bench-shards`.

What happens is `tests/chaos`: moves, a drain, scaling, a flip, restarts, kills and a hang, on several Ray
nodes with Consul, two controllers and two routers, drawn with a seed until enough was asked.
"""

import json
import subprocess
import sys
from typing import Any

from deploy.settings import PROJECT_ROOT
from tests.bench.result import Check, at_least, at_most, publish

SEED, REQUESTS = 1, 100_000

Figures = dict[str, Any]


def main() -> None:
    """Run the benchmark alone."""
    figures = measure()
    settings = {"seed": SEED, "requests": REQUESTS}
    publish("chaos", settings=settings, figures=figures, checks=checks(figures))


def measure() -> Figures:
    """Return the report of a run; it ends with the scenario that breaks off, and goes on after a loss."""
    options = ("--seed", str(SEED), "--requests", str(REQUESTS), "--keep-going")
    done = subprocess.run(
        [sys.executable, "-m", "tests.chaos", *options],
        cwd=PROJECT_ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    report: Figures = json.loads(done.stdout)
    return report


def checks(figures: Figures) -> list[Check]:
    """Return the figures beside their aims, one line for each scenario that was run."""
    found = [at_least("searches asked while faults and operations happened", _asked(figures), REQUESTS)]
    for name in dict.fromkeys(phase["name"] for phase in figures["phases"]):
        phases = [phase for phase in figures["phases"] if phase["name"] == name]
        requests = sum(phase["during"]["requests"] for phase in phases)
        lost = sum(phase["lost"] for phase in phases)
        found.append(at_most(f"{name}: searches lost, of {requests:,}", lost, 0))
        if times := [p["full_strength_s"] for p in phases if p["whole_within_s"]]:
            found.append(
                at_most(f"{name}: full strength after", max(times), phases[0]["whole_within_s"], "s")
            )
    found.append(at_least("scenarios that came to their end", float(not figures["error"]), 1))
    return found


def _asked(figures: Figures) -> int:
    return int(figures["total"]["requests"])


if __name__ == "__main__":
    main()
