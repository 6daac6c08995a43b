"""How shadows compare and what closed gates save and lose, as routers report it."""

from collections.abc import Iterable

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.codec.violations import Field, collecting
from shards.shadow import GateReport, ShadowReport


def shadow_report_to_proto(report: ShadowReport) -> pb.ShadowReport:
    """Return the message of a report."""
    return pb.ShadowReport(
        surface=report.surface,
        release_version=report.version,
        searches=report.searches,
        failures=report.failures,
        overlap_sum=report.overlap_sum,
        common_items=report.common_items,
        score_difference_sum=report.score_difference_sum,
        rank_difference_sum=report.rank_difference_sum,
        extra_seconds_sum=report.extra_seconds_sum,
    )


def gate_report_to_proto(report: GateReport) -> pb.GateReport:
    """Return the message of a report."""
    return pb.GateReport(
        surface=report.surface,
        release_version=report.version,
        searches=report.searches,
        failures=report.failures,
        other_items_sum=report.other_items_sum,
        changed_pages=report.changed_pages,
        saved_seconds_sum=report.saved_seconds_sum,
    )


def gate_reports_from_proto(message: pb.ReportShadowRequest) -> tuple[GateReport, ...]:
    """Return the reports; raises `InvalidInput` with every field at fault, below "gate_reports"."""
    with collecting("gate_reports") as field:
        return tuple(_read_gate_report(r, field.element(i)) for i, r in enumerate(message.gate_reports))


def _read_gate_report(message: pb.GateReport, field: Field) -> GateReport:
    _check_report(
        message,
        field,
        counts=("searches", "failures", "changed_pages"),
        sums=("other_items_sum", "saved_seconds_sum"),
    )
    return GateReport(
        surface=message.surface,
        version=message.release_version,
        searches=message.searches,
        failures=message.failures,
        other_items_sum=message.other_items_sum,
        changed_pages=message.changed_pages,
        saved_seconds_sum=message.saved_seconds_sum,
    )


def shadow_reports_from_proto(message: pb.ReportShadowRequest) -> tuple[ShadowReport, ...]:
    """Return the reports; raises `InvalidInput` with every field at fault, below "reports"."""
    with collecting("reports") as field:
        return tuple(_read_report(report, field.element(i)) for i, report in enumerate(message.reports))


def _read_report(message: pb.ShadowReport, field: Field) -> ShadowReport:
    _check_report(
        message,
        field,
        counts=("searches", "failures", "common_items"),
        sums=("overlap_sum", "score_difference_sum", "rank_difference_sum", "extra_seconds_sum"),
    )
    return ShadowReport(
        surface=message.surface,
        version=message.release_version,
        searches=message.searches,
        failures=message.failures,
        overlap_sum=message.overlap_sum,
        common_items=message.common_items,
        score_difference_sum=message.score_difference_sum,
        rank_difference_sum=message.rank_difference_sum,
        extra_seconds_sum=message.extra_seconds_sum,
    )


def _check_report(
    message: pb.GateReport | pb.ShadowReport, field: Field, *, counts: Iterable[str], sums: Iterable[str]
) -> None:
    """Refuse a report of nothing, negative counts and sums that are not finite."""
    field.child("surface").check_set(message.surface)
    field.child("release_version").check_set(message.release_version)
    for name in counts:
        field.child(name).check(getattr(message, name) >= 0, "must not be negative")
    for name in sums:
        field.child(name).check_finite(getattr(message, name))
