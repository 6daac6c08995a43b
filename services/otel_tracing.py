"""Spans recorded by OpenTelemetry's SDK and sent in batches by a thread, over OTLP or to a file."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span as OtelSpan
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, format_trace_id, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.telemetry_settings import ProcessTelemetry
from services.tracing import TRACEPARENT, TRACESTATE, Metadata, Span, Value

log = logging.getLogger(__name__)

_EXPORT_TIMEOUT_S = 2.0
LONGEST_FILE_BYTES = 50 * 2**20
_W3C = TraceContextTextMapPropagator()
_NOBODY = Context()


class OtelTracing:
    """Records by the decision of whoever called; where nobody decided, a share of the calls, or none."""

    def __init__(self, telemetry: ProcessTelemetry, *, roots: bool) -> None:
        settings = telemetry.settings.traces
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(settings.ratio if roots else 0.0)),
            resource=Resource.create(
                {
                    "service.name": f"headrace-{telemetry.role}",
                    "service.instance.id": telemetry.name,
                }
            ),
            shutdown_on_exit=False,
        )
        if settings.endpoint:
            exporter = OTLPSpanExporter(endpoint=settings.endpoint, timeout=_EXPORT_TIMEOUT_S)
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        if settings.folder:
            path = Path(settings.folder) / f"{telemetry.name}.jsonl"
            self._provider.add_span_processor(BatchSpanProcessor(SpanFile(path)))
        self._tracer = self._provider.get_tracer("headrace")

    def begin(self, name: str, metadata: Metadata) -> Span | None:
        """Return the span of a call, below that of its caller where the metadata names one."""
        carrier = {key: value for key, value in metadata if key in (TRACEPARENT, TRACESTATE)}
        caller = _W3C.extract(carrier, context=_NOBODY) if carrier else _NOBODY
        span = self._tracer.start_span(name, caller, kind=SpanKind.SERVER)
        return _Recorded(span, self._tracer) if span.is_recording() else None

    def close(self) -> None:
        """Send on what is recorded."""
        self._provider.shutdown()


class _Recorded:
    """A span of the SDK's."""

    __slots__ = ("_span", "_tracer")

    def __init__(self, span: OtelSpan, tracer: Tracer) -> None:
        self._span = span
        self._tracer = tracer

    @property
    def trace_id(self) -> str:
        return format_trace_id(self._span.get_span_context().trace_id)

    @property
    def traceparent(self) -> str:
        carrier: dict[str, str] = {}
        _W3C.inject(carrier, set_span_in_context(self._span, _NOBODY))
        return carrier[TRACEPARENT]

    def child(self, name: str, *, start_ns: int | None = None, calls: bool = False) -> Span:
        span = self._tracer.start_span(
            name,
            set_span_in_context(self._span, _NOBODY),
            kind=SpanKind.CLIENT if calls else SpanKind.INTERNAL,
            start_time=start_ns,
        )
        return _Recorded(span, self._tracer)

    def tell(self, attributes: Mapping[str, Value]) -> None:
        self._span.set_attributes(attributes)

    def end(self, *, error: str = "", end_ns: int | None = None) -> None:
        if error:
            self._span.set_status(Status(StatusCode.ERROR, error))
        self._span.end(end_ns)


class SpanFile(SpanExporter):
    """Appends spans to a file, a line of JSON each; a long file is begun anew, and the last one kept."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Write the spans; what cannot be written is lost."""
        lines = "".join(f"{span.to_json(indent=None)}\n" for span in spans)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and self._path.stat().st_size > LONGEST_FILE_BYTES:
                self._path.replace(self._path.with_suffix(".old.jsonl"))
            with self._path.open("a") as file:
                file.write(lines)
        except OSError as error:
            log.error("%d spans cannot be written to %s: %s", len(spans), self._path, error.strerror)
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS
