"""How every process writes its log: lines for people, or JSON lines for programs."""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from services import tracing

_PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_FIELDS = "headrace_fields"


def log_to(path: Path | None, *, process: str, as_json: bool) -> None:
    """Send this process's log to a file, or to standard error."""
    handler = logging.StreamHandler(sys.stderr) if path is None else logging.FileHandler(path)
    handler.setFormatter(JsonLines(process) if as_json else PlainLines(_PLAIN))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    # It tells of every request, and Consul is asked about once a second.
    logging.getLogger("httpx2").setLevel(logging.WARNING)


def extra(fields: Mapping[str, object]) -> dict[str, object]:
    """Return what a call of a logger takes as its `extra`, so that the line has these fields."""
    return {_FIELDS: fields}


class PlainLines(logging.Formatter):
    """Lines for people; fields, if there are any, stand at the end as JSON."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Return the line without its traceback."""
        fields: Mapping[str, object] = getattr(record, _FIELDS, {})
        line = super().formatMessage(record)
        return f"{line} {json.dumps(fields, ensure_ascii=False)}" if fields else line


class JsonLines(logging.Formatter):
    """An object a line: time, level, logger, process, message; then trace, fields and traceback, if any."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "time": at,
            "level": record.levelname,
            "logger": record.name,
            "process": self._process,
            "message": record.getMessage(),
        }
        if (span := tracing.current()) is not None:
            line["trace_id"] = span.trace_id
        line |= getattr(record, _FIELDS, {})
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
