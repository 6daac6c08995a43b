"""One search, traced through client, router and shard, and read back from the files of both processes."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from router.client import HeadraceClient, SearchError
from services.telemetry_settings import ROUTER, MetricsSettings, ProcessTelemetry, Telemetry, TraceSettings
from tests.router.real_shards import Models, real_shards
from tests.router.running_router import running
from tests.services.spans import WrittenSpan, written_spans
from tests.shards.bundles import SURFACE

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SAMPLED, NOT_SAMPLED = (f"00-{TRACE_ID}-{CALLER}-{flags}" for flags in ("01", "00"))


def traced(
    models: Models, folder: Path, searches: Sequence[dict[str, Any]], *, ratio: float = 0.0
) -> list[WrittenSpan]:
    """Return the spans of some searches, once router and shards have ended."""
    spans = folder / "spans"
    settings = Telemetry(
        metrics=MetricsSettings(on=False), traces=TraceSettings(folder=str(spans), ratio=ratio)
    )
    seen = ProcessTelemetry(role=ROUTER, name="router-0", settings=settings)

    async def main() -> None:
        async with (
            real_shards(models, folder, ["s1"], settings) as addresses,
            running(models.placed_on(addresses), folder, telemetry=seen) as router,
            HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client,
        ):
            for search in searches:
                try:
                    await client.search(**{"surface": SURFACE, "query": "red mug", **search})
                except SearchError:
                    assert search["surface"] == "nowhere"

    asyncio.run(main())
    return written_spans(spans)


def children(spans: Sequence[WrittenSpan], parent: WrittenSpan) -> list[WrittenSpan]:
    found = [span for span in spans if span.parent_id == parent.span_id]
    assert all(parent.start <= span.start <= span.end <= parent.end for span in found)
    return sorted(found, key=lambda span: span.start)


def one(spans: Sequence[WrittenSpan], name: str) -> WrittenSpan:
    (found,) = (span for span in spans if span.name == name)
    return found


def test_a_search_on_one_shard_is_one_trace(models: Models, tmp_path: Path) -> None:
    spans = traced(models, tmp_path, [{"traceparent": SAMPLED, "request_id": "q-1"}])
    assert {span.trace_id for span in spans} == {TRACE_ID}
    root = one(spans, "search")
    assert (root.process, root.parent_id, root.kind) == ("router-0", CALLER, "SpanKind.SERVER")
    assert root.attributes == {
        "headrace.surface": SURFACE,
        "headrace.release": "r1",
        "headrace.generation": 1,
        "headrace.request_id": "q-1",
        "headrace.status": "ok",
        "headrace.items": 10,
        "headrace.gaps": [],
    }
    gate, run = children(spans, root)
    assert (gate.name, gate.attributes["headrace.gate.reason"]) == ("gate", "default_open")
    assert (run.name, run.kind) == ("Run", "SpanKind.CLIENT")
    (shard,) = (span for span in spans if span.parent_id == run.span_id)
    assert (shard.name, shard.process, shard.attributes["headrace.shard"]) == ("shard.cascade", "s1", "s1")
    assert shard.attributes["headrace.model"] == run.attributes["headrace.model"]
    assert [span.name for span in children(spans, shard)] == ["queue", "compute"]
    steps = [span for span in spans if span.parent_id == one(spans, "compute").span_id]
    assert [step.name for step in sorted(steps, key=lambda step: step.start)] == [
        *["retrieval"] * 5,
        "pre-ranking",
        "ranking",
    ]
    assert all(step.attributes["headrace.candidates"] >= 0 for step in steps)


def test_stages_that_are_asked_one_by_one_have_calls_of_their_own(models: Models, tmp_path: Path) -> None:
    spans = traced(models, tmp_path, [{"traceparent": SAMPLED, "explain": True}])
    root = one(spans, "search")
    calls = [span for span in children(spans, root) if span.name != "gate"]
    assert sorted(call.name for call in calls) == [*["PreRank", "Rank"], *["Retrieve"] * 5]
    for call in calls:
        (shard,) = (span for span in spans if span.parent_id == call.span_id)
        assert shard.attributes["headrace.model"] == call.attributes["headrace.model"]
        assert [span.name for span in children(spans, shard)] == ["queue", "compute"]
    assert {span.process for span in spans} == {"router-0", "s1"}


def test_the_caller_decides_and_else_the_ratio(models: Models, tmp_path: Path) -> None:
    unsampled = {"traceparent": NOT_SAMPLED}
    assert traced(models, tmp_path / "none", [unsampled, {}, {}]) == []
    spans = traced(models, tmp_path / "all", [unsampled, {}, {}], ratio=1.0)
    roots = [span for span in spans if span.name == "search"]
    assert [root.parent_id for root in roots] == ["", ""]
    assert TRACE_ID not in {span.trace_id for span in spans}
    assert {span.trace_id for span in spans if span.process == "s1"} == {root.trace_id for root in roots}


def test_a_search_that_fails_says_so_and_nothing_of_who_searched(models: Models, tmp_path: Path) -> None:
    wrong = {
        "surface": "nowhere",
        "query": "very private",
        "user_id": "ann@example.com",
        "traceparent": SAMPLED,
    }
    fine = {"query": "very private", "user_id": "ann@example.com", "traceparent": SAMPLED}
    spans = traced(models, tmp_path, [wrong, fine])
    failed = next(span for span in spans if span.attributes.get("headrace.status") == "not_found")
    assert (failed.status, failed.attributes["headrace.surface"]) == ("ERROR", "unknown")
    written = "".join(path.read_text() for path in (tmp_path / "spans").iterdir())
    assert "private" not in written
    assert "ann@" not in written


@pytest.mark.parametrize("malformed", ["", "nonsense", f"00-{'0' * 32}-{CALLER}-01"])
def test_a_traceparent_that_is_none_traces_nothing(models: Models, tmp_path: Path, malformed: str) -> None:
    assert traced(models, tmp_path, [{"traceparent": malformed}]) == []
