"""From a team's Parquet files to the first good answer: `make bench-init`.

A shop of 50,000 items and 1,000,000 events is written (`own_shop`); then the real commands run as a team
would run them: `headrace init`, `headrace up` in the new project, which trains, evaluates, deploys and
serves, and `headrace search`. The clock runs from the first command to the first answer; each phase is shown
with what it took and the memory of all its processes. Whether answers are good is measured behind the clock,
on held-out purchases that training did not see, beside popularity and BM25. Writes `build/bench/init.json`.
"""

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from deploy.processes import descendants, resident_bytes
from deploy.settings import PROJECT_ROOT
from tests.bench.own_shop import OwnShop
from tests.bench.process_use import ProcessUse
from tests.bench.result import Check, at_least, at_most, publish
from tests.deploy.running_cluster import headrace
from training.evaluation.report import RANKED

_LIMIT_S = 600.0
_LEAST_OVER_POPULARITY = 1.5
_LEAST_OF_DEPARTMENT = 0.8
_LOOK_EVERY_S = 0.25
_BEGINNINGS = {
    "Training ": "train",
    "Evaluating ": "evaluate",
    "Starting Ray": "start processes",
    "Deploying ": "load and check models",
}
"""How `headrace up` says that a phase begins."""


@dataclass(slots=True, kw_only=True)
class Phase:
    """One phase: its wall clock, and the processor time and the largest memory of all its processes."""

    name: str
    began_s: float
    seconds: float = 0.0
    processor_s: float = 0.0
    peak_mib: float = 0.0


@dataclass(slots=True)
class Clock:
    """The phases so far; a thread looks at the processes of the one under way."""

    pid: int = 0
    phases: list[Phase] = field(default_factory=list)
    _used_s: dict[int, float] = field(default_factory=dict)
    _before_s: float = 0.0

    def begin(self, name: str) -> None:
        """End the phase under way and begin another."""
        self.end()
        self.phases.append(Phase(name=name, began_s=time.monotonic()))
        self._before_s = sum(self._used_s.values())

    def end(self) -> None:
        """End the phase under way."""
        if self.phases and not self.phases[-1].seconds:
            self.look()
            phase = self.phases[-1]
            phase.seconds = time.monotonic() - phase.began_s
            phase.processor_s = sum(self._used_s.values()) - self._before_s

    def look(self) -> None:
        """Note what all processes below `pid` hold and have used; those that ended keep what they had."""
        memory = 0
        for pid in [self.pid, *(process.pid for process in descendants(self.pid))] if self.pid else []:
            with contextlib.suppress(OSError, IndexError):
                self._used_s[pid] = max(ProcessUse.of(pid).cpu_s, self._used_s.get(pid, 0.0))
                memory += resident_bytes(pid)
        if self.phases:
            self.phases[-1].peak_mib = max(self.phases[-1].peak_mib, memory / 2**20)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look every so often while the block runs."""
        done = threading.Event()

        def watch() -> None:
            while not done.wait(_LOOK_EVERY_S):
                self.look()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()


def main() -> int:
    """Run the benchmark; the exit code is 1 where a check failed."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--items", type=int, default=50_000)
    arguments.add_argument("--events", type=int, default=1_000_000)
    arguments.add_argument("--shoppers", type=int, default=60_000)
    arguments.add_argument("--queries", type=int, default=1_000, help="held-out queries to measure by")
    given = arguments.parse_args()
    shop = OwnShop(items=given.items, events=given.events, shoppers=given.shoppers)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        return _measure(Path(folder), shop, given.queries)


def _measure(folder: Path, shop: OwnShop, queries: int) -> int:
    shop.write(folder)
    asked = _first_search(folder)
    clock, project = Clock(), folder / "my-shop"
    with clock.watching():
        _run(clock, "init", "init", str(project), *_tables(folder))
        _any_ports(project)
        with _up(clock, project):
            search = ("search", "--project", str(project), *asked, "--json")
            answer = json.loads(_run(clock, "first search", *search))
            clock.end()
        again = Clock()
        with again.watching(), _up(again, project):
            again.end()
    report = ("--project", str(project), "--limit", str(queries), "--json")
    rankings = json.loads(_output("eval", *report))["offline"]
    trained = _training(project)
    checks = _checks(clock, again, answer, rankings, asked[0])
    _show(clock, trained)
    publish(
        "init",
        settings={**asdict(shop), "queries": queries},
        figures={
            "phases": [asdict(phase) for phase in clock.phases],
            "training": trained,
            "second_up": [asdict(phase) for phase in again.phases],
            "rankings": rankings,
            "first_answer": answer["items"],
        },
        checks=checks,
    )
    return 0 if all(check.ok for check in checks) else 1


def _tables(folder: Path) -> tuple[str, ...]:
    return ("--items", str(folder / "items.parquet"), "--events", str(folder / "events.parquet"))


def _first_search(folder: Path) -> tuple[str, ...]:
    """Return what the busiest shopper asks: the department of which most is sold."""
    events = pq.read_table(folder / "events.parquet", columns=["customer", "sku"])
    items = pq.read_table(folder / "items.parquet", columns=["sku", "department"])
    counts = events.join(items, "sku").group_by("department").aggregate([("sku", "count")])
    shoppers = events.group_by("customer").aggregate([("sku", "count")])
    department = counts.sort_by([("sku_count", "descending"), ("department", "ascending")])["department"][0]
    customer = shoppers.sort_by([("sku_count", "descending"), ("customer", "ascending")])["customer"][0]
    return department.as_py(), "--user", customer.as_py()


def _any_ports(project: Path) -> None:
    """Let the cluster take any ports, as others may run beside it on this machine."""
    path = project / "headrace.toml"
    path.write_text(re.sub(r"_port = \d+", "_port = 0", path.read_text()))


def _run(clock: Clock, phase: str, *arguments: str) -> str:
    """Run a command as a phase; returns its standard output."""
    clock.begin(phase)
    with subprocess.Popen(
        headrace(*arguments), cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        outer, clock.pid = clock.pid, process.pid
        out, err = process.communicate()
        clock.pid = outer
    clock.end()
    if process.returncode:
        raise RuntimeError(f"headrace {arguments[0]} failed: {err}")
    return out


def _output(*arguments: str) -> str:
    return subprocess.run(
        headrace(*arguments), cwd=PROJECT_ROOT, capture_output=True, text=True, check=True
    ).stdout


@contextmanager
def _up(clock: Clock, project: Path) -> Iterator[None]:
    """Run `headrace up` inside the block, which begins when it says READY; its phases are on the clock."""
    command = headrace("up", "--project", str(project))
    clock.begin("read the project")
    with subprocess.Popen(
        command, cwd=PROJECT_ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        clock.pid = process.pid
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                phase = next((name for words, name in _BEGINNINGS.items() if line.startswith(words)), "")
                if phase:
                    clock.begin(phase)
                if line.startswith("READY "):
                    break
            else:
                raise RuntimeError("headrace up failed: " + "".join(said[-40:]))
            threading.Thread(target=process.stdout.read, daemon=True).start()
            clock.end()
            yield
        finally:
            clock.pid = 0
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGTERM)
            process.wait()


def _training(project: Path) -> list[dict[str, str]]:
    """Return what each phase of the training took, as it has written down."""
    path = next((project / ".headrace" / "training").glob("*/phases.csv"))
    heading, *rows = (line.split(",") for line in path.read_text().splitlines())
    return [dict(zip(heading, row, strict=True)) for row in rows]


def _checks(
    clock: Clock,
    again: Clock,
    answer: Mapping[str, Any],
    rankings: Sequence[Mapping[str, Any]],
    department: str,
) -> list[Check]:
    ndcg = {row["ranking"]: row["overall"]["ndcg_10"] for row in rankings}
    of_it = [item["attributes"]["department"] == department for item in answer["items"]]
    last, share = clock.phases[-1], sum(of_it) / max(len(of_it), 1)
    trained = sum(phase.name in ("train", "evaluate") for phase in again.phases)
    whole_s = last.began_s + last.seconds - clock.phases[0].began_s
    over_popularity = ndcg[RANKED] / max(ndcg["popular"], 1e-9)
    return [
        at_most("Parquet to the first answer", whole_s, _LIMIT_S, "s"),
        at_least("NDCG@10 over popularity's", over_popularity, _LEAST_OVER_POPULARITY, "times"),
        at_least("NDCG@10 over BM25's", ndcg[RANKED] / max(ndcg["lexical"], 1e-9), 1.0, "times"),
        at_least("first page: share of the department asked for", share, _LEAST_OF_DEPARTMENT),
        at_most("second up: phases of training", trained, 0),
    ]


def _show(clock: Clock, trained: list[dict[str, str]]) -> None:
    table = Table(title="From Parquet to the first answer", title_justify="left")
    table.add_column("phase")
    for heading in ("s", "processor s", "peak MiB"):
        table.add_column(heading, justify="right")
    for phase in clock.phases:
        table.add_row(phase.name, f"{phase.seconds:.1f}", f"{phase.processor_s:.1f}", f"{phase.peak_mib:.0f}")
        for row in trained if phase.name == "train" else ():
            table.add_row(f"  {row['phase']}", row["seconds"], row["processor_s"], row["resident_mib"])
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
