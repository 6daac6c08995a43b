"""Spans on their way out of a process: to a collector over HTTP, and to files."""

import asyncio
import queue
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult

from services import otel_tracing
from services.otel_tracing import SpanFile
from services.telemetry_settings import ROUTER, ProcessTelemetry, Telemetry, TraceSettings
from services.tracing import Within, part, running_tracing
from tests.services.spans import written_spans

CALLER = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


@contextmanager
def collector() -> Iterator[tuple[str, "queue.Queue[ExportTraceServiceRequest]"]]:
    """Give the endpoint of an OTLP collector, and what arrives there."""
    arrived: queue.Queue[ExportTraceServiceRequest] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            arrived.put(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/v1/traces", arrived
        finally:
            server.shutdown()
            thread.join()


def trace_once(settings: TraceSettings) -> None:
    telemetry = ProcessTelemetry(role=ROUTER, name="router-0", settings=Telemetry(traces=settings))

    async def main() -> None:
        async with running_tracing(telemetry, roots=False) as tracing:
            assert tracing is not None
            assert tracing.begin("search", ()) is None
            with Within(tracing.begin("search", (CALLER,))), part("gate") as gate:
                assert gate is not None
                gate.tell({"headrace.gate.open": True})

    asyncio.run(main())


def test_spans_reach_a_collector() -> None:
    with collector() as (endpoint, arrived):
        trace_once(TraceSettings(endpoint=endpoint))
        (resource,) = arrived.get(timeout=10).resource_spans
    named = {attribute.key: attribute.value.string_value for attribute in resource.resource.attributes}
    assert (named["service.name"], named["service.instance.id"]) == ("headrace-router", "router-0")
    gate, search = resource.scope_spans[0].spans
    assert (gate.name, search.name) == ("gate", "search")
    assert search.trace_id.hex() == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert search.parent_span_id.hex() == "00f067aa0ba902b7"
    assert gate.parent_span_id == search.span_id
    assert [(a.key, a.value.bool_value) for a in gate.attributes] == [("headrace.gate.open", True)]


def test_a_collector_that_is_not_there_costs_nothing_but_the_spans(tmp_path: Path) -> None:
    trace_once(TraceSettings(endpoint="http://127.0.0.1:1/v1/traces", folder=str(tmp_path)))
    assert sorted(span.name for span in written_spans(tmp_path)) == ["gate", "search"]


def test_a_long_file_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "router-0.jsonl"
    path.write_bytes(b" " * (otel_tracing.LONGEST_FILE_BYTES + 1))
    assert SpanFile(path).export([_span()]) is SpanExportResult.SUCCESS
    assert len(path.read_text().splitlines()) == 1
    assert (tmp_path / "router-0.old.jsonl").stat().st_size == otel_tracing.LONGEST_FILE_BYTES + 1


def test_a_folder_that_cannot_be_written_fails_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "spans").write_text("a file where a folder should be")
    assert SpanFile(tmp_path / "spans" / "router-0.jsonl").export([_span()]) is SpanExportResult.FAILURE


def _span() -> ReadableSpan:
    with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("search") as span:
        assert isinstance(span, ReadableSpan)
    return span
