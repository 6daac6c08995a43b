"""What a search costs as the same models are served in several ways: `make bench-search`.

Headrace on one shard and on three, Ray Serve in its defaults and throughput-optimised, and the same
arithmetic in one process answer the same held-out MovieLens searches, at 1, 8 and 32 in flight. They take
turns, several rounds of them, so that whatever else the machine does hits all alike; figures are medians over
the rounds. Every system is started for its turn, and its answers are compared with those of the one process
before it is timed.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from deploy.release_files import surfaces
from deploy.settings import PROJECT_ROOT
from deploy.workspace import Workspace
from tests.bench.processor_time import processor_s, wait_for_calm
from tests.bench.result import FOLDER, Check, at_least, at_most, publish
from tests.bench.search_caller import Load
from tests.bench.search_profile import profiled
from tests.bench.search_requests import SURFACE, Material, material
from tests.bench.search_systems import (
    Running,
    System,
    fused,
    in_process,
    ray_serve,
    ray_serve_optimised,
    split,
)

IN_FLIGHT = 1, 8, 32
SAMPLE = 100
"""Requests whose answers are compared."""

_COLUMNS = 100
"""Of the table, also where nobody looks at it in a terminal."""

Figures = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to measure: `rounds` turns of every system, in each a window for each number in flight."""

    rounds: int
    window_s: float
    warm_s: float


FULL = Plan(rounds=3, window_s=5.0, warm_s=1.0)
QUICK = Plan(rounds=1, window_s=3.0, warm_s=0.7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One system, one number in flight, one round."""

    throughput: float
    p50_ms: float
    p99_ms: float
    cpu_ms: Mapping[str, float]
    """Processor time of the system for a request, by process."""
    caller_cpu_ms: float
    failed: int
    degraded: int
    problem: str


@dataclass(slots=True, kw_only=True)
class Measured:
    """What was seen of one system."""

    windows: dict[int, list[Window]] = field(default_factory=dict)
    different: int = 0
    """Answers of the sample that are not those of the one process."""
    broken: list[str] = field(default_factory=list)
    """Why turns broke off."""


class Bench:
    """The systems over one material."""

    def __init__(self, material: Material, folder: Path, plan: Plan) -> None:
        self._material, self._folder, self._plan = material, folder, plan
        self._expected: list[list[str]] = []
        self._turn = 0

    def measure(self, systems: Sequence[System], *, profile: bool) -> dict[str, Measured]:
        """Return what every system did."""
        with self._started(in_process(1)) as running:
            self._expected = running.asker.item_ids(range(SAMPLE))
        found = {system.key: Measured() for system in systems}
        for number in range(self._plan.rounds):
            for system in systems:
                last = number == self._plan.rounds - 1
                try:
                    self._measure(system, found[system.key], profile=profile and last)
                except Exception as error:
                    # The others are worth their minutes, and this one shows among the checks.
                    found[system.key].broken.append(repr(error))
                    _say(f"{system.key} breaks off: {error!r}")
        return found

    def _measure(self, system: System, measured: Measured, *, profile: bool) -> None:
        started = time.monotonic()
        with self._started(system) as running:
            answers = running.asker.item_ids(range(SAMPLE))
            pairs = zip(answers, self._expected, strict=True)
            measured.different += sum(answer != expected for answer, expected in pairs)
            wait_for_calm(running.processes)
            for in_flight in IN_FLIGHT:
                window = self._window(running, in_flight)
                measured.windows.setdefault(in_flight, []).append(window)
                _say(
                    f"{system.name}: {in_flight} in flight, {window.throughput:.0f}/s, {window.p50_ms:.2f} ms"
                )
            if profile:
                load = Load(in_flight=max(IN_FLIGHT), seconds=self._plan.window_s, warm_s=self._plan.warm_s)
                for line in profiled(running, load, FOLDER, f"search-profile-{system.key}"):
                    _say(line)
        _say(f"{system.name} took {time.monotonic() - started:.0f} s")

    @contextmanager
    def _started(self, system: System) -> Iterator[Running]:
        self._turn += 1
        folder = self._folder / f"{self._turn:03d}-{system.key}"
        folder.mkdir()
        with system.run(self._material, folder) as running:
            # The first answer comes when everything is open.
            running.asker.item_ids([0])
            yield running

    def _window(self, running: Running, in_flight: int) -> Window:
        before = processor_s(running.processes)
        load = Load(in_flight=in_flight, seconds=self._plan.window_s, warm_s=self._plan.warm_s)
        result = running.asker.load(load)
        used = processor_s(running.processes)
        answered = max(1, result.asked - result.failed)
        p50, p99 = np.quantile(result.latencies_ms or [float("nan")], [0.5, 0.99])
        return Window(
            throughput=len(result.latencies_ms) / result.seconds,
            p50_ms=float(p50),
            p99_ms=float(p99),
            cpu_ms={name: (used[name] - before[name]) / answered * 1e3 for name in list(used)},
            caller_cpu_ms=result.cpu_s / answered * 1e3,
            failed=result.failed,
            degraded=result.degraded,
            problem=result.problem,
        )


def figures_of(measured: Measured) -> Figures:
    """Return the medians over the rounds, by number in flight."""
    return {str(in_flight): _medians(windows) for in_flight, windows in measured.windows.items()}


def _medians(windows: Sequence[Window]) -> Figures:
    names = sorted({name for window in windows for name in window.cpu_ms})
    by_process = {name: _median([window.cpu_ms.get(name, 0.0) for window in windows]) for name in names}
    return {
        "throughput": _median([window.throughput for window in windows]),
        "p50_ms": _median([window.p50_ms for window in windows]),
        "p99_ms": _median([window.p99_ms for window in windows]),
        "cpu_ms": _median([sum(window.cpu_ms.values()) for window in windows]),
        "cpu_ms_by_process": by_process,
        "caller_cpu_ms": _median([window.caller_cpu_ms for window in windows]),
        "failed": sum(window.failed for window in windows),
        "degraded": sum(window.degraded for window in windows),
        "problems": sorted({window.problem for window in windows if window.problem}),
        "rounds": {
            "throughput": [round(window.throughput, 1) for window in windows],
            "p50_ms": [round(window.p50_ms, 3) for window in windows],
            "p99_ms": [round(window.p99_ms, 3) for window in windows],
        },
    }


def _median(values: Sequence[float]) -> float:
    return round(float(np.median(values)), 4)


def checks_of(found: Mapping[str, Measured], figures: Mapping[str, Figures]) -> list[Check]:
    """Return the figures beside their aims, as far as the systems were measured."""
    most = str(max(IN_FLIGHT))
    checks = []
    rivals = [figures[key][most] for key in ("c", "t") if most in figures.get(key, {})]
    if most in figures.get("a", {}) and rivals:
        fastest = max(rival["throughput"] for rival in rivals)
        quickest = min(rival["p50_ms"] for rival in rivals)
        a = figures["a"][most]
        checks += [
            at_least(f"throughput of a against the better c, {most} in flight", a["throughput"] / fastest, 5),
            at_most(f"p50 of a against the better c, {most} in flight", a["p50_ms"] / quickest, 0.25),
        ]
    for key, aim in (("a", 1.3), ("b", 1.8)):
        if "1" in figures.get(key, {}) and "1" in figures.get("d", {}):
            ratio = figures[key]["1"]["p50_ms"] / figures["d"]["1"]["p50_ms"]
            checks.append(at_most(f"p50 of {key} against d, 1 in flight", ratio, aim))
    windows = [w for measured in found.values() for of in measured.windows.values() for w in of]
    checks += [
        at_most("turns that broke off", sum(len(m.broken) for m in found.values()), 0),
        at_most("answers of the sample that differ", sum(m.different for m in found.values()), 0),
        at_most("searches that failed", sum(window.failed for window in windows), 0),
        at_most("answers with gaps", sum(window.degraded for window in windows), 0),
    ]
    return checks


def table_of(systems: Sequence[System], figures: Mapping[str, Figures]) -> Table:
    """Return the table for people."""
    title = "medians over the rounds; processor time for a request of the system, and of its caller"
    table = Table(title=title, title_justify="left")
    table.add_column("system", no_wrap=True)
    headings = ("in flight", "per s", "p50 ms", "p99 ms", "CPU ms", "caller's")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for system in systems:
        for in_flight, row in figures[system.key].items():
            cells = (row[n] for n in ("throughput", "p50_ms", "p99_ms", "cpu_ms", "caller_cpu_ms"))
            name = f"{system.key}  {system.name}" if in_flight == str(IN_FLIGHT[0]) else ""
            table.add_row(name, in_flight, *(f"{cell:.3g}" for cell in cells))
        table.add_section()
    return table


def main() -> int:
    """Run the benchmark; 1 where a figure misses its aim."""
    options = _options()
    systems = {
        system.key: system
        for system in (
            fused(2),
            fused(1),
            split(),
            ray_serve(options.ray_replicas),
            ray_serve_optimised(options.ray_replicas),
            in_process(1),
            in_process(2),
        )
    }
    chosen = [systems[key] for key in options.only.split(",")] if options.only else list(systems.values())
    plan = QUICK if options.quick else FULL
    workspace = Workspace(options.workspace.absolute())
    if SURFACE not in surfaces(workspace):
        _train(workspace)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-", ignore_cleanup_errors=True) as name:
        served = material(workspace, Path(name))
        found = Bench(served, Path(name), plan).measure(chosen, profile=options.profile)
    figures = {key: figures_of(measured) for key, measured in found.items()}
    checks = checks_of(found, figures)
    Console(width=_COLUMNS).print(table_of(chosen, figures))
    settings = {
        "release": served.release.version,
        "requests": served.requests,
        "in_flight": IN_FLIGHT,
        "rounds": plan.rounds,
        "window_s": plan.window_s,
        "warm_s": plan.warm_s,
        "ray_replicas": options.ray_replicas,
        "systems": {system.key: system.name for system in chosen},
    }
    publish("search", settings=settings, figures=figures, checks=checks)
    return 0 if all(check.ok for check in checks) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    workspace = PROJECT_ROOT / "build" / "bench" / "movielens"
    parser.add_argument("--workspace", type=Path, default=workspace, help="trained, or trained into at first")
    parser.add_argument("--only", default="", help="keys of systems, as a,d: a a1 b c t d d2")
    parser.add_argument("--quick", action="store_true", help="one round of short windows, about two minutes")
    parser.add_argument("--profile", action="store_true", help="record where the processes spend their time")
    parser.add_argument("--ray-replicas", type=int, default=1, help="replicas of each of Ray's deployments")
    return parser.parse_args()


def _train(workspace: Workspace) -> None:
    _say("training on MovieLens-100K; only this once")
    command = [sys.executable, "-m", "deploy.cli", "train", SURFACE, "--workspace", str(workspace.root)]
    subprocess.run([*command, "--replace"], cwd=PROJECT_ROOT, stdout=sys.stderr, check=True)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main())
