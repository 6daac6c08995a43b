"""Reports of shadows add up, and those that come too late do not count."""

from dataclasses import replace

from services.shadow_reports import ShadowReports
from shards.release import Traffic
from shards.shadow import ShadowReport
from tests.shards.bundles import RELEASE, SURFACE

TRAFFIC = {SURFACE: Traffic(shadow=RELEASE, shadow_percent=10)}


def report(searches: int, version: str = RELEASE.version, surface: str = SURFACE) -> ShadowReport:
    return ShadowReport(surface=surface, version=version, searches=searches, overlap_sum=searches / 2)


def test_reports_of_the_shadow_add_up() -> None:
    reports = ShadowReports()
    assert reports.of(SURFACE, TRAFFIC) is None
    reports.add([report(3), report(2), report(9, "gone"), report(9, surface="other")], TRAFFIC)
    reports.add([report(1)], TRAFFIC)
    assert reports.of(SURFACE, TRAFFIC) == report(6)
    assert reports.of(SURFACE, {}) is None
    assert reports.of("other", TRAFFIC) is None


def test_another_shadow_starts_anew() -> None:
    reports = ShadowReports()
    reports.add([report(3)], TRAFFIC)
    other = {SURFACE: Traffic(shadow=replace(RELEASE, version="r9"), shadow_percent=10)}
    assert reports.of(SURFACE, other) is None
    reports.add([report(3), report(4, "r9")], other)
    assert reports.of(SURFACE, other) == report(4, "r9")
