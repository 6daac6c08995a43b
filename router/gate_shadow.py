"""What a closed gate saves and loses: the same search again with the gate open, and both compared. Pure."""

from dataclasses import replace

from router.answer import Answer
from router.traffic import share_of
from shards.release import Release
from shards.shadow import GateReport


def is_gate_shadowed(sent: Answer, request_id: str) -> bool:
    """Return whether a search that was answered is in the sample of those with a closed gate."""
    rules = sent.release.gate
    if sent.gate.open or not rules.shadow_percent or not any(c.gated for c in sent.release.channels):
        return False
    return share_of("gate-shadow", sent.release.surface, request_id) < rules.shadow_percent / 100


def with_open_gate(release: Release) -> Release:
    """Return the release with all its channels asked."""
    return replace(release, gate=replace(release.gate, mode="always"))


def compare_gate(sent: Answer, opened: Answer) -> GateReport:
    """Return the report of one search, whose answer was `sent` with the gate closed."""
    had, would_have = ([item.item_id for item in answer.items] for answer in (sent, opened))
    others = sum(item_id not in had for item_id in would_have)
    return GateReport(
        surface=sent.release.surface,
        version=sent.release.version,
        searches=1,
        other_items_sum=others / len(would_have) if would_have else 0.0,
        changed_pages=int(had != would_have),
        saved_seconds_sum=_computed_s(opened) - _computed_s(sent),
    )


def unopened(release: Release) -> GateReport:
    """Return the report of one search that was not answered with the gate open."""
    return GateReport(surface=release.surface, version=release.version, failures=1)


def _computed_s(answer: Answer) -> float:
    return sum(timing.compute_s for timing in answer.timings)
