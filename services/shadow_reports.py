"""What routers have told of shadows, added up; in memory, as it may be lost without harm."""

from collections.abc import Iterable, Mapping

from shards.release import Traffic
from shards.shadow import ShadowReport


class ShadowReports:
    """Adds up the reports of each surface's shadow; starts anew when another release becomes it."""

    def __init__(self) -> None:
        self._of_surface: dict[str, ShadowReport] = {}

    def add(self, reports: Iterable[ShadowReport], traffic: Mapping[str, Traffic]) -> None:
        """Add reports; those of a release that is not its surface's shadow come too late and are left out."""
        for report in reports:
            if report.version == _shadow_version(traffic, report.surface):
                so_far = self.of(report.surface, traffic)
                self._of_surface[report.surface] = so_far.plus(report) if so_far else report

    def of(self, surface: str, traffic: Mapping[str, Traffic]) -> ShadowReport | None:
        """Return what is known of the surface's shadow, None where there is none or nothing was told."""
        report = self._of_surface.get(surface)
        if report and report.version == _shadow_version(traffic, surface):
            return report
        return None


def _shadow_version(traffic: Mapping[str, Traffic], surface: str) -> str | None:
    shadow = traffic[surface].shadow if surface in traffic else None
    return shadow.version if shadow else None
