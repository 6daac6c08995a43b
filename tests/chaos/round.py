"""Rounds of scenarios over one cluster under load, and the figures of each."""

import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.chaos import workload
from tests.chaos.cluster import ChaosCluster, chaos_cluster, measured_answers
from tests.chaos.scenarios import KINDS, Kind, Outcome
from tests.chaos.timeline import Figures, Timeline, figures, lines, steady_load

_CALM_S = 4.0
_AFTER_S = 1.5
"""What a router or a retry may still be at when the controller sees a whole cluster."""

_WHOLE_S = 120.0

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """One scenario: searches while it ran, and latency in the calm before; see `Figures` and `Outcome`."""

    name: str
    seconds: float
    during: Figures
    before: Figures
    moves: int
    full_strength_s: float | None
    whole_within_s: float | None
    plain_may_fail: bool
    note: str

    @property
    def lost(self) -> int:
        """Return how many searches were lost that must not be."""
        return self.during.failed + self.before.failed + self.plain_lost

    @property
    def plain_lost(self) -> int:
        """Return how many callers without retries lost, where no router went."""
        return 0 if self.plain_may_fail else self.during.plain_failed + self.before.plain_failed

    @property
    def late(self) -> bool:
        """Return whether full strength took longer than promised."""
        return self.full_strength_s is not None and self.full_strength_s > (self.whole_within_s or math.inf)

    def to_json(self) -> dict[str, Any]:
        """Return the phase as a document."""
        return asdict(self) | {"lost": self.lost, "late": self.late}


class LostSearch(Exception):
    """A scenario lost a search, or did not come to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """How to run: what a seed draws, how much is asked at least, and which scenarios take part."""

    seed: int
    folder: Path
    requests: int = 0
    """Scenarios are drawn until so many searches were answered; the first round is whole and in order."""
    only: Sequence[str] = ()
    shards: int = 4
    nodes: int = 3
    moves: int = 50
    """In one scenario of planned moves."""
    rate: float = 0.0
    """Searches a second; 0 finds half of what the machine bears, and `most_rate` at most."""
    most_rate: float = 250.0
    keep_going: bool = False
    """Go on after a lost search, for the figures."""

    @property
    def kinds(self) -> list[Kind]:
        """Return the scenarios of the first round; raises ValueError for one that is not known."""
        known = {kind.name: kind for kind in KINDS}
        if unknown := set(self.only) - known.keys():
            raise ValueError(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return [known[name] for name in self.only] if self.only else list(KINDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All phases and the whole load; `lost` counts what must not be."""

    seed: int
    rate: float
    total: Figures
    phases: Sequence[Phase]
    error: str = ""

    @property
    def lost(self) -> int:
        """Return how many searches were lost that must not be."""
        return self.total.failed + sum(
            phase.lost - phase.during.failed - phase.before.failed for phase in self.phases
        )

    def to_json(self) -> dict[str, Any]:
        """Return the report as a document."""
        return {
            "seed": self.seed,
            "rate": self.rate,
            "total": asdict(self.total),
            "lost": self.lost,
            "error": self.error,
            "phases": [phase.to_json() for phase in self.phases],
        }


def run(rounds: Rounds, say: Say) -> Report:
    """Run the scenarios; what goes wrong is in the report, with the evidence said."""
    phases: list[Phase] = []
    error = ""
    say(f"seed {rounds.seed}: starting {rounds.nodes} Ray nodes and {rounds.shards} shards …")
    with _under_load(rounds, say) as (cluster, timeline):
        rate = timeline.started()
        say(f"{rate:.0f} searches a second")
        try:
            for kind, rng in _drawn(rounds, timeline, cluster):
                phase = _phase(kind, rng, cluster, timeline)
                phases.append(phase)
                say(_line(phase))
                if phase.lost:
                    _evidence(phase, cluster, timeline, say)
                    if not rounds.keep_going:
                        raise LostSearch(f"{kind.name} lost {phase.lost} searches")
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
            say(f"stopped: {error}")
            if not isinstance(failure, LostSearch):
                _say_logs(cluster, say)
        seconds = timeline.everything()
    return Report(
        seed=rounds.seed,
        rate=rate,
        total=figures(timeline.everything() or seconds),
        phases=phases,
        error=error,
    )


@contextmanager
def _under_load(rounds: Rounds, say: Say) -> Iterator[tuple[ChaosCluster, Timeline]]:
    running = chaos_cluster(rounds.folder, shards=rounds.shards, nodes=rounds.nodes, moves=rounds.moves)
    with running as cluster:
        cluster.whole(_WHOLE_S)
        questions = rounds.folder / "questions.json"
        workload.write_questions(questions, workload.questions(measured_answers(cluster.up.router)))
        say("the cluster is whole; starting the load …")
        rates = rounds.rate, rounds.most_rate
        with steady_load(cluster.up.router, questions, *rates, rounds.folder) as timeline:
            yield cluster, timeline


def _drawn(rounds: Rounds, timeline: Timeline, cluster: ChaosCluster) -> Iterator[tuple[Kind, random.Random]]:
    """Yield every scenario once, then draw until enough was asked."""
    rng = random.Random(rounds.seed)
    for kind in rounds.kinds:
        yield kind, rng
    while figures(timeline.everything()).requests < rounds.requests:
        yield rng.choice([kind for kind in rounds.kinds if _fits(kind, cluster)]), rng


def _fits(kind: Kind, cluster: ChaosCluster) -> bool:
    """Return whether the scenario can happen to a cluster of this size."""
    match kind.name:
        case "scale-out":
            return cluster.shards < 4
        case "scale-in" | "moves" | "drain":
            return cluster.shards > 2
        case _:
            return True


def _phase(kind: Kind, rng: random.Random, cluster: ChaosCluster, timeline: Timeline) -> Phase:
    cluster.whole(_WHOLE_S)
    calm_s = time.monotonic()
    timeline.wait(calm_s + _CALM_S)
    began_s = time.monotonic()
    outcome = Outcome(note="not ended")
    try:
        outcome = kind.run(cluster, rng)
    finally:
        ended_s = time.monotonic() + _AFTER_S
        timeline.wait(ended_s)
        phase = Phase(
            name=kind.name,
            seconds=ended_s - _AFTER_S - began_s,
            during=figures(timeline.between(began_s, ended_s)),
            before=figures(timeline.between(calm_s, began_s - 1.0)),
            moves=outcome.moves,
            full_strength_s=outcome.full_strength_s,
            whole_within_s=kind.whole_within_s,
            plain_may_fail=kind.plain_may_fail,
            note=outcome.note,
        )
    return phase


def _line(phase: Phase) -> str:
    strength = "" if phase.full_strength_s is None else f", whole after {phase.full_strength_s:.1f} s"
    moves = f", {phase.moves} moves" if phase.moves else ""
    during, before = phase.during, phase.before
    return (
        f"{phase.name}: {during.requests} searches in {phase.seconds:.0f} s, {during.failed} failed, "
        f"{during.plain_failed} of {during.plain_requests} failed without retries, "
        f"{during.degraded} degraded, p50 {before.p50_ms:.1f} -> {during.p50_ms:.1f} ms, "
        f"p99 {before.p99_ms:.1f} -> {during.p99_ms:.1f} ms"
        f"{strength}{moves} {phase.note}"
    ).rstrip()


def _evidence(phase: Phase, cluster: ChaosCluster, timeline: Timeline, say: Say) -> None:
    seconds = timeline.between(time.monotonic() - phase.seconds - _CALM_S - _AFTER_S - 2, math.inf)
    for line in lines(seconds):
        say(line)
    for failure in [failure for second in seconds for failure in second.failures][:20]:
        say(str(failure))
    _say_logs(cluster, say)


def _say_logs(cluster: ChaosCluster, say: Say) -> None:
    for name, text in cluster.logs():
        say(f"--- {name}")
        say(text)
