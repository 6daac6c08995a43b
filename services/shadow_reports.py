"""What routers have told of shadows and closed gates, added up; in memory, as it may be lost without harm."""

from collections.abc import Callable, Iterable
from typing import Generic

from shards.placement import Placement
from shards.shadow import GateReport, R, ShadowReport, added


class ReportSums(Generic[R]):
    """Adds up the reports of each surface; starts anew when they tell of another release.

    `version_of` says which release of a surface counts, None for none: what others tell comes too late.
    """

    def __init__(self, version_of: Callable[[Placement, str], str | None]) -> None:
        self._version_of = version_of
        self._of_surface: dict[str, R] = {}

    def add(self, reports: Iterable[R], placement: Placement) -> None:
        """Add reports, and leave out those of a release that does not count."""
        for report in reports:
            if report.version == self._version_of(placement, report.surface):
                so_far = self.of(report.surface, placement)
                self._of_surface[report.surface] = added(so_far, report) if so_far else report

    def of(self, surface: str, placement: Placement) -> R | None:
        """Return what is known of the surface, None where nothing was told of the release that counts."""
        report = self._of_surface.get(surface)
        if report and report.version == self._version_of(placement, surface):
            return report
        return None


def shadow_reports() -> ReportSums[ShadowReport]:
    """Return the sums of how shadows compare."""
    return ReportSums(_shadow_version)


def gate_reports() -> ReportSums[GateReport]:
    """Return the sums of what the gates of live releases save and lose."""
    return ReportSums(_live_version)


def _shadow_version(placement: Placement, surface: str) -> str | None:
    shadow = placement.traffic[surface].shadow if surface in placement.traffic else None
    return shadow.version if shadow else None


def _live_version(placement: Placement, surface: str) -> str | None:
    live = placement.releases.get(surface)
    return live.version if live else None
