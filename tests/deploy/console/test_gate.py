"""How often gates open now, from what routers count; and the curve of a report."""

import asyncio
import json
import re
from pathlib import Path

from deploy.console.gate_rates import Decided, GateRates, watch_gates
from deploy.console.gate_report import read_curves
from deploy.workspace import Workspace
from services.instruments import counter
from services.metrics_port import metrics_port
from services.telemetry_settings import ROUTER, ProcessTelemetry, Telemetry
from shards.measures import Counts
from tests.deploy.console.visit import visiting
from tests.shards.bundles import SURFACE

OPEN = Decided(SURFACE, True, "gain_likely")
CLOSED = Decided(SURFACE, False, "exact_id")


def test_decisions_are_counted_from_the_first_look_on_and_over_restarts() -> None:
    rates = GateRates()
    rates.add(0.0, {"router-0": {OPEN: 100}})
    rates.add(5.0, {"router-0": {OPEN: 103, CLOSED: 1}, "router-1": {OPEN: 50}})
    rates.add(10.0, {"router-0": {OPEN: 2}, "router-1": {OPEN: 50, CLOSED: 4}})
    assert rates.since("shop", 0.0) == {OPEN: 5, CLOSED: 5}
    assert rates.since("shop", 5.0) == {OPEN: 2, CLOSED: 4}
    assert rates.since("other", 0.0) == {}
    assert rates.curve("shop", 60.0) == [(5.0, 0.75), (10.0, 0.5)]
    assert rates.curve("shop", 5.0) == [(5.0, 0.75), (10.0, 2 / 6)]


def report() -> dict[str, object]:
    def points(*rates: float) -> list[dict[str, object]]:
        return [{"rate": r, "figures": {"recall_100": 0.9, "ndcg_10": (14 + 2 * r) / 20}} for r in rates]

    return {
        "dataset": "shop",
        "release": "shop r7",
        "queries": 1200,
        "policies": [
            {"name": "never", "points": points(0.0)},
            {"name": "random", "points": points(0.0, 0.5, 1.0)},
            {"name": "learned, before", "points": points(0.0, 0.5, 1.0)},
        ],
        "chance_band": {"recall_100": {"0.5": 0.01}, "ndcg_10": {"0.5": 0.02}},
        "problems": ["embedding adds nothing measurable"],
    }


def test_the_curve_of_a_report_is_drawn(tmp_path: Path) -> None:
    path = tmp_path / "gate.json"
    assert read_curves(path) is None
    path.write_text("{}")
    assert read_curves(path) is None
    path.write_text(json.dumps(report()))
    found = read_curves(path)
    assert found is not None
    _, page = found.curves
    assert [line.name for line in page.lines] == ["never", "random", "learned, before"]
    assert page.lines[1].band == [(0.0, 0.7, 0.0), (0.5, 0.75, 0.02), (1.0, 0.8, 0.0)]
    drawn = re.search(r'<polyline points="([^"]+)" class="line line-accent"', page.picture)
    assert drawn
    heights = [float(point.split(",")[1]) for point in drawn[1].split()]
    assert heights == sorted(heights, reverse=True)


def test_the_page_says_where_the_routers_cannot_be_seen() -> None:
    with visiting() as visit:
        assert "are not seen from here" in visit.page("/gate")
        assert "There is no curve yet" in visit.page("/gate")


def test_live_rates_come_from_the_routers_metrics(tmp_path: Path) -> None:
    folder = Workspace(tmp_path).metrics_dir
    folder.mkdir(parents=True)
    counted = Counts("surface", "decision", "reason", "version")
    telemetry = ProcessTelemetry(role=ROUTER, name="router-0", settings=Telemetry(), targets_dir=folder)
    told = counter("headrace_router_gate_decisions_total", "Decisions.", counted)
    rates = GateRates()

    async def until(decisions: int) -> None:
        while not rates.buckets or rates.since(SURFACE, 0.0).total() < decisions:  # noqa: ASYNC110
            await asyncio.sleep(0.01)

    async def main() -> None:
        counted.add(SURFACE, "open", "gain_likely", "gate@1")
        with metrics_port(telemetry, [told]):
            watching = asyncio.create_task(watch_gates(rates, folder, every_s=0.01))
            async with asyncio.timeout(20):
                await until(0)
                for _ in range(3):
                    counted.add(SURFACE, "closed", "exact_id", "gate@1")
                await until(3)
            watching.cancel()

    asyncio.run(main())
    assert rates.since(SURFACE, 0.0) == {CLOSED: 3}
