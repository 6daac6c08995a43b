"""Reports of shadows and gates add up, and those that come too late do not count."""

from dataclasses import replace

from services.shadow_reports import gate_reports, shadow_reports
from shards.placement import Placement
from shards.release import Traffic
from shards.shadow import GateReport, ShadowReport
from tests.shards.bundles import RELEASE, SURFACE

NEWER = replace(RELEASE, version="r9")
PLACEMENT = Placement(
    releases={SURFACE: NEWER}, traffic={SURFACE: Traffic(shadow=RELEASE, shadow_percent=10)}
)


def report(searches: int, version: str = RELEASE.version, surface: str = SURFACE) -> ShadowReport:
    return ShadowReport(surface=surface, version=version, searches=searches, overlap_sum=searches / 2)


def test_reports_of_the_shadow_add_up() -> None:
    reports = shadow_reports()
    assert reports.of(SURFACE, PLACEMENT) is None
    reports.add([report(3), report(2), report(9, "gone"), report(9, surface="other")], PLACEMENT)
    reports.add([report(1)], PLACEMENT)
    assert reports.of(SURFACE, PLACEMENT) == report(6)
    assert reports.of(SURFACE, Placement()) is None
    assert reports.of("other", PLACEMENT) is None


def test_another_shadow_starts_anew() -> None:
    reports = shadow_reports()
    reports.add([report(3)], PLACEMENT)
    other = replace(PLACEMENT, traffic={SURFACE: Traffic(shadow=NEWER, shadow_percent=10)})
    assert reports.of(SURFACE, other) is None
    reports.add([report(3), report(4, "r9")], other)
    assert reports.of(SURFACE, other) == report(4, "r9")


def test_of_gates_that_of_the_live_release_counts() -> None:
    reports = gate_reports()
    told = [
        GateReport(surface=SURFACE, version=version, searches=2, saved_seconds_sum=0.5)
        for version in ("r9", "r9", RELEASE.version)
    ]
    reports.add(told, PLACEMENT)
    assert reports.of(SURFACE, PLACEMENT) == GateReport(
        surface=SURFACE, version="r9", searches=4, saved_seconds_sum=1.0
    )
    rolled_back = replace(PLACEMENT, releases={SURFACE: RELEASE})
    assert reports.of(SURFACE, rolled_back) is None
