"""Releases: what answers for each surface, what is tried beside it, what shadows and gates are like."""

from collections.abc import Iterable, Iterator, Mapping

from rich.table import Table

from deploy.views.table import new_table, state_text, titled
from protos.headrace.v1 import cluster_service_pb2 as pb
from shards.release import LEARNED_MODES


def releases_table(surfaces: Iterable[pb.SurfaceReleases]) -> Table:
    """Return a table of every release that is loaded, by surface."""
    headings = ("surface", "role", "share", "release", "pins")
    table = new_table("Releases", *headings, numeric=("share",), long=("pins",))
    for surface in surfaces:
        for role, share, release in roles_of(surface):
            pins = ", ".join(pins_of(surface, release))
            table.add_row(surface.surface, state_text(role), share, release.version, pins)
    return table


def roles_of(surface: pb.SurfaceReleases) -> Iterator[tuple[str, str, pb.Release]]:
    """Return what a surface has loaded: as what, its share in words, the release."""
    traffic = surface.traffic
    canary = traffic.canary_percent if traffic.HasField("canary") else 0
    if surface.HasField("live"):
        yield "live", _percent(100 - canary), surface.live
    if traffic.HasField("canary"):
        yield "canary", _percent(canary), traffic.canary
    if traffic.HasField("shadow"):
        yield "shadow", _percent(traffic.shadow_percent), traffic.shadow
    if traffic.HasField("previous"):
        yield "previous", "", traffic.previous


def pins_of(surface: pb.SurfaceReleases, release: pb.Release) -> list[str]:
    """Return what a release pins; of one beside the live release only what differs from that."""
    pinned = _pinned(release)
    if release is surface.live:
        return pinned
    live = _pinned(surface.live)
    others = [*(f"+ {name}" for name in pinned if name not in live)]
    others += [f"- {name}" for name in live if name not in pinned]
    return others or ["as live"]


def _pinned(release: pb.Release) -> list[str]:
    pinned = [
        f"{channel.model.model}@{channel.model.version}"
        + (f" in {channel.partitions} partitions" if channel.partitions > 1 else "")
        for channel in release.channels
    ]
    scorers = [s.model for s in (release.pre_ranker, release.ranker) if s.model.model]
    gate = [_gate(release.gate)] if release.gate.HasField("model") else []
    return [*pinned, *(f"{model.model}@{model.version}" for model in scorers), *gate]


def _gate(gate: pb.GateRules) -> str:
    """Return the gate's model, and how it decides where it does."""
    name = f"{gate.model.model}@{gate.model.version}"
    if gate.mode not in LEARNED_MODES:
        return f"{name} (mode {gate.mode})"
    return f"{name} ({gate.mode} lexical, {gate.target_rate:.0%} triggered)"


def aliases_table(aliases: Mapping[str, str]) -> Table:
    """Return a table of other names and what they stand for."""
    table = new_table("Aliases", "alias", "stands for")
    for alias, target in sorted(aliases.items()):
        table.add_row(alias, target)
    return table


def shadows_table(surfaces: Iterable[pb.SurfaceReleases]) -> Table:
    """Return a table of how shadows compare with what was sent; means over what both answered."""
    headings = ("shadow", "searches", "failed", "overlap", "Δ score", "Δ rank", "Δ time")
    table = new_table("Shadows", *headings, numeric=headings[1:])
    for surface in surfaces:
        report = surface.shadow_report
        if surface.HasField("shadow_report"):
            table.add_row(
                titled(surface.surface, report.release_version),
                f"{report.searches:,}",
                f"{report.failures:,}",
                _mean(report.overlap_sum * 100, report.searches, ".1f", " %"),
                _mean(report.score_difference_sum, report.common_items, ".3g"),
                _mean(report.rank_difference_sum, report.common_items, ".1f"),
                _mean(report.extra_seconds_sum * 1000, report.searches, "+.1f", " ms"),
            )
    return table


def gates_table(surfaces: Iterable[pb.SurfaceReleases]) -> Table:
    """Return a table of what closed gates save and lose; means over the sample that ran with an open one."""
    headings = ("gate", "searches", "failed", "other items", "other pages", "saved")
    table = new_table("Gates", *headings, numeric=headings[1:])
    for surface in surfaces:
        report = surface.gate_report
        if surface.HasField("gate_report"):
            table.add_row(
                titled(surface.surface, report.release_version),
                f"{report.searches:,}",
                f"{report.failures:,}",
                _mean(report.other_items_sum * 100, report.searches, ".1f", " %"),
                _mean(report.changed_pages * 100, report.searches, ".1f", " %"),
                _mean(report.saved_seconds_sum * 1000, report.searches, "+.1f", " ms"),
            )
    return table


def _mean(total: float, count: int, form: str, unit: str = "") -> str:
    return f"{total / count:{form}}{unit}" if count else "-"


def _percent(share: float) -> str:
    return f"{share:.4g} %"
