"""`make soak MINUTES=10`: a cluster under everything at once; figures and checks in build/bench/soak.json."""

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

from deploy.outcome_lines import read_lines
from deploy.processes import adopt_orphans, end_children
from deploy.readout import readout
from deploy.settings import PROJECT_ROOT
from tests.bench.result import Check, at_least, at_most, publish
from tests.chaos import workload
from tests.chaos.cluster import ChaosCluster, chaos_cluster, measured_answers
from tests.chaos.load import Failure
from tests.chaos.scenarios import KINDS
from tests.chaos.timeline import Timeline, figures, steady_load
from tests.soak.alarms import Seen, alarms, drift_injected, recall_lowered
from tests.soak.memory import Life, MemoryWatch
from tests.soak.watched_surface import SURFACE, Shopper, planning_file, prepare, serving_file

_SCENARIOS = ("moves", "flip", "kill-shard", "kill-router", "kill-controller", "drain", "pause-shard")
_FIRST_HALF = frozenset({"kill-router", "kill-controller"})
"""What the second half leaves out: whether memory grows, a process shows that lives for long."""
_WHOLE_S = 150.0
_LONGEST_S = 400.0
"""After a scenario that took too long, which is told, the soak goes on if the cluster comes back at all."""
_RATE = 20.0
_SETTLE_S = 5.0
_ON_PURPOSE = frozenset({"RESOURCE_EXHAUSTED"})
"""What a search that a router refuses under too much load is told."""

_FLAT_MB_PER_MIN = {"router": 2.0, "controller": 2.0, "shard": 5.0}
"""What the median slope of a process may be: peaks of an attack go, what leaks stays. Routers and controllers
are judged that lived at least half as long as the longest: the first minutes of any life are warming up."""
_LIVED = 0.3
"""Of the run, what a router and a controller have to have lived to be judged by."""


@dataclass(slots=True, kw_only=True)
class Soak:
    """What happened."""

    scenarios: Counter[str] = field(default_factory=Counter)
    seen: list[Seen] = field(default_factory=list)
    false_alarms: set[tuple[str, str]] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)


def main() -> int:
    """Run; 1 where a check fails."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    adopt_orphans()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as scratch:
            return run(Path(scratch), minutes=asked.minutes, seed=asked.seed)
    finally:
        end_children()


def run(folder: Path, *, minutes: float, seed: int) -> int:
    """Start the cluster, do everything to it, and publish what became of it."""
    soak, rng = Soak(), random.Random(seed)
    options = ("--serving", str(serving_file(folder)), "--planning", str(planning_file(folder)))
    with ExitStack() as exits:
        cluster = exits.enter_context(
            chaos_cluster(folder, shards=3, nodes=2, moves=6, options=options, prepare=prepare)
        )
        cluster.whole(_WHOLE_S)
        questions = folder / "questions.json"
        workload.write_questions(questions, workload.questions(measured_answers(cluster.up.router)))
        timeline = exits.enter_context(steady_load(cluster.up.router, questions, _RATE, _RATE, folder))
        shopper = exits.enter_context(Shopper(cluster.up.router))
        memory = exits.enter_context(MemoryWatch(lambda: _pids(cluster)))
        abuse = exits.enter_context(_abuse(cluster.up.router, folder, seed))
        timeline.started()
        try:
            _everything(cluster, shopper, soak, rng, 60 * minutes)
        except Exception as error:
            soak.problems.append(f"{type(error).__name__}: {error}")
        time.sleep(_SETTLE_S)
        timeline.wait(time.monotonic() - 1.0)
        lives, attacks = memory.lives(), Counter(line.partition(":")[0] for line in _lines(abuse))
        checks = [*_checks(timeline, shopper, soak, attacks), *_memory_checks(lives, 60 * minutes)]
        outcomes = partial(read_lines, cluster.up.workspace.outcomes_dir)
        publish(
            "soak",
            settings={"minutes": minutes, "seed": seed, "rate": _RATE, "shards": 3, "routers": 2},
            figures=_figures(timeline, shopper, soak, lives, attacks)
            | {"readout": asdict(readout(outcomes, SURFACE, ["click"], window_ms=60_000, since_ms=0))},
            checks=checks,
        )
    return 0 if all(check.ok for check in checks) else 1


def _everything(
    cluster: ChaosCluster, shopper: Shopper, soak: Soak, rng: random.Random, lasting_s: float
) -> None:
    """Run scenarios until the time is over, with both injections of poor quality among them."""
    half_s, until_s = time.monotonic() + lasting_s / 2, time.monotonic() + lasting_s
    kinds = {kind.name: kind for kind in KINDS if kind.name in _SCENARIOS}
    order = list(_SCENARIOS)
    turn = 0
    while time.monotonic() < until_s or turn < 6:
        if turn == 2:
            soak.false_alarms |= alarms(cluster)
            soak.seen += recall_lowered(cluster)
        elif turn == 4:
            soak.seen += drift_injected(cluster, shopper)
        else:
            first_half = time.monotonic() <= half_s
            due = [name for name in _SCENARIOS if first_half or name not in _FIRST_HALF]
            order = [name for name in order if name in due] or rng.sample(due, len(due))
            name = order.pop(0)
            cluster.whole(_WHOLE_S)
            _say(name)
            try:
                kinds[name].run(cluster, rng)
                soak.scenarios[name] += 1
            except TimeoutError as error:
                soak.problems.append(f"{name}: {error}")
        cluster.whole(_LONGEST_S)
        turn += 1


def _checks(timeline: Timeline, shopper: Shopper, soak: Soak, attacks: Mapping[str, int]) -> list[Check]:
    total = figures(timeline.everything())
    checks = [
        at_most("searches lost that were not refused on purpose", len(_lost(timeline)), 0),
        at_most("searches and events of the watched surface lost", len(shopper.lost), 0),
        at_most("steps of the run that did not come to their end", len(soak.problems), 0),
        at_least("searches answered", total.requests + shopper.searches, 1_000),
        at_least("events recorded", shopper.events, 100),
        at_least("kinds of attacks made", len(attacks), 10),
        at_most("alarms before anything was wrong", len(soak.false_alarms), 0),
    ]
    for seen in soak.seen:
        after_s = float("inf") if seen.after_s is None else seen.after_s
        checks.append(at_most(f"{seen.name}, after", after_s, 150.0, "s"))
    checks.append(at_least("alarms and refusals looked for", len(soak.seen), 5))
    return checks


def _memory_checks(lives: Sequence[Life], lasting_s: float) -> list[Check]:
    checks = []
    for role, most in _FLAT_MB_PER_MIN.items():
        own = [life for life in lives if life.name.startswith(role)]
        if role != "shard":
            longest_s = max((life.seconds for life in own), default=0.0)
            checks.append(at_least(f"a {role} lived", longest_s, _LIVED * lasting_s, "s"))
            own = [life for life in own if life.seconds >= longest_s / 2]
        grown = max((life.mb_per_min for life in own), default=float("inf"))
        checks.append(at_most(f"memory of a {role}", grown, most, "MB/min"))
    return checks


def _figures(
    timeline: Timeline, shopper: Shopper, soak: Soak, lives: Sequence[Life], attacks: Mapping[str, int]
) -> dict[str, object]:
    failures = [failure for second in timeline.everything() for failure in second.failures]
    return {
        "load": asdict(figures(timeline.everything())),
        "lost": [asdict(failure) for failure in _lost(timeline)][:20],
        "failures": dict(Counter(f"{failure.lane} {failure.code}" for failure in failures)),
        "watched": {
            "searches": shopper.searches,
            "events": shopper.events,
            "lost": shopper.lost[:20],
        },
        "scenarios": dict(soak.scenarios),
        "problems": soak.problems,
        "seen": [asdict(seen) for seen in soak.seen],
        "attacks": dict(attacks),
        "memory": [asdict(life) for life in lives],
    }


def _lost(timeline: Timeline) -> list[Failure]:
    """Return the failures of callers who retry, but for those that were refused on purpose."""
    return [
        failure
        for second in timeline.everything()
        for failure in second.failures
        if failure.lane == "client" and failure.code not in _ON_PURPOSE
    ]


def _pids(cluster: ChaosCluster) -> dict[str, int]:
    """Return every process that serves or controls, by name."""
    running = cluster.up.workspace.running().processes
    found = {name: pid for name, pid in running.items() if name.startswith(("router", "controller"))}
    sight = cluster.desk.look()
    return found | {shard.shard_id: int(shard.pid) for shard in (sight.shards if sight else ()) if shard.pid}


@contextmanager
def _abuse(router: str, folder: Path, seed: int) -> Iterator[Path]:
    """Attack the routers while the block runs; give the file that says what was done."""
    told = folder / "abuse.log"
    with told.open("w") as output, (folder / "abuse.err").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.soak.abuser", router, str(seed)],
            cwd=PROJECT_ROOT,
            stdout=output,
            stderr=errors,
        )
        try:
            yield told
        finally:
            process.kill()
            process.wait()


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def _say(line: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {line}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
