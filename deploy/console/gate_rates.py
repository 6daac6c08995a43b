"""How often gates open now: what routers count, looked at every few seconds."""

import asyncio
import logging
import time
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Never

import httpx2
from prometheus_client.parser import text_string_to_metric_families

from services.metrics_targets import metrics_targets
from services.telemetry_settings import ROUTER

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 5.0
_KEPT = 360
_TIMEOUT_S = 3.0
_METRIC = "headrace_router_gate_decisions"


@dataclass(frozen=True, slots=True)
class Decided:
    """What a count is of: where, whether the gate opened, and why."""

    surface: str
    open: bool
    reason: str


Counts = Mapping[Decided, float]


@dataclass(frozen=True, slots=True)
class Bucket:
    """Decisions between two looks."""

    end_s: float
    counts: Counter[Decided]


@dataclass(slots=True)
class GateRates:
    """The last half hour of decisions, over all routers."""

    buckets: deque[Bucket] = field(default_factory=lambda: deque(maxlen=_KEPT))
    _known: dict[str, dict[Decided, float]] = field(default_factory=dict)

    def add(self, now_s: float, totals: Mapping[str, Counts]) -> None:
        """Add what routers have counted since they started, by process.

        The first look at a process tells nothing of when its decisions were; one that restarted begins at 0.
        """
        counts: Counter[Decided] = Counter()
        for process, found in totals.items():
            before = self._known.get(process)
            self._known[process] = dict(found)
            if before is None:
                continue
            for decided, total in found.items():
                grown = total - before.get(decided, 0.0)
                if grown:
                    counts[decided] += round(grown if grown > 0 else total)
        self.buckets.append(Bucket(now_s, counts))

    def since(self, surface: str, from_s: float) -> Counter[Decided]:
        """Return the decisions on a surface after a moment."""
        found: Counter[Decided] = Counter()
        for bucket in self.buckets:
            if bucket.end_s > from_s:
                found.update({d: count for d, count in bucket.counts.items() if d.surface == surface})
        return found

    def curve(self, surface: str, window_s: float) -> list[tuple[float, float]]:
        """Return moments and the share of gates that opened in the window before each that saw a search."""
        points = []
        inside: deque[tuple[float, float, float]] = deque()
        for bucket in self.buckets:
            opened = sum(n for d, n in bucket.counts.items() if d.surface == surface and d.open)
            decided = sum(n for d, n in bucket.counts.items() if d.surface == surface)
            inside.append((bucket.end_s, opened, decided))
            while inside[0][0] <= bucket.end_s - window_s:
                inside.popleft()
            if total := sum(part[2] for part in inside):
                points.append((bucket.end_s, sum(part[1] for part in inside) / total))
        return points


async def watch_gates(rates: GateRates, folder: Path, every_s: float = _LOOK_EVERY_S) -> Never:
    """Look at the routers whose metrics are noted in a folder, again and again."""
    async with httpx2.AsyncClient(timeout=_TIMEOUT_S, trust_env=False) as client:
        while True:
            rates.add(time.monotonic(), await _totals(client, folder))
            await asyncio.sleep(every_s)


async def _totals(client: httpx2.AsyncClient, folder: Path) -> dict[str, Counts]:
    found = {}
    for target in metrics_targets(folder):
        if target.role != ROUTER:
            continue
        try:
            answer = await client.get(f"http://{target.address}/metrics")
            found[target.process] = _decisions(answer.text.splitlines())
        except (httpx2.HTTPError, ValueError) as error:
            log.debug("%s cannot be scraped: %s", target.process, error)
    return found


def _decisions(lines: Iterable[str]) -> Counts:
    """Return the counts of gates in a page of metrics; the others are not parsed."""
    told = "\n".join(line for line in lines if line.startswith(_METRIC))
    counts: Counter[Decided] = Counter()
    for family in text_string_to_metric_families(told + "\n"):
        for sample in family.samples:
            if sample.name == f"{_METRIC}_total":
                labels = sample.labels
                opened = labels["decision"] == "open"
                counts[Decided(labels["surface"], opened, labels["reason"])] += int(sample.value)
    return counts
