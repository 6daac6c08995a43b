"""Spans that stay in memory, and those that a process has written to its file."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.tracing import Metadata, Span, Value


@dataclass
class MemorySpan:
    """A span with its parts; every trace has the same id."""

    name: str
    attributes: dict[str, Value] = field(default_factory=dict)
    parts: list["MemorySpan"] = field(default_factory=list)
    times_ns: tuple[int | None, int | None] = (None, None)
    error: str | None = None
    calls: bool = False

    trace_id: str = "0" * 31 + "1"
    traceparent: str = f"00-{'0' * 31}1-{'0' * 15}2-01"

    def child(self, name: str, *, start_ns: int | None = None, calls: bool = False) -> Span:
        self.parts.append(MemorySpan(name, times_ns=(start_ns, None), calls=calls))
        return self.parts[-1]

    def tell(self, attributes: Mapping[str, Value]) -> None:
        self.attributes |= attributes

    def end(self, *, error: str = "", end_ns: int | None = None) -> None:
        self.error = error
        self.times_ns = (self.times_ns[0], end_ns)


@dataclass
class MemoryTracing:
    """Traces every call."""

    begun: list[MemorySpan] = field(default_factory=list)
    metadata: list[dict[str, str | bytes]] = field(default_factory=list)

    def begin(self, name: str, metadata: Metadata) -> Span | None:
        self.begun.append(MemorySpan(name))
        self.metadata.append(dict(metadata))
        return self.begun[-1]

    def close(self) -> None:
        pass


@dataclass(frozen=True)
class WrittenSpan:
    """A span as the file of a process has it."""

    process: str
    name: str
    trace_id: str
    span_id: str
    parent_id: str
    attributes: Mapping[str, Any]
    start: str
    end: str
    status: str
    kind: str


def written_spans(folder: Path) -> list[WrittenSpan]:
    """Return the spans that the processes have written to their files in the folder."""
    found = []
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            span = json.loads(line)
            found.append(
                WrittenSpan(
                    process=path.stem,
                    name=span["name"],
                    trace_id=span["context"]["trace_id"].removeprefix("0x"),
                    span_id=span["context"]["span_id"].removeprefix("0x"),
                    parent_id=(span["parent_id"] or "").removeprefix("0x"),
                    attributes=span["attributes"],
                    start=span["start_time"],
                    end=span["end_time"],
                    status=span["status"]["status_code"],
                    kind=span["kind"],
                )
            )
    return found
