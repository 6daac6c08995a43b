import json
import logging
from datetime import UTC, datetime

from services.process_log import JsonLines, PlainLines, extra
from services.tracing import Within, part
from tests.services.spans import MemorySpan


def record(message: str, *arguments: object, **more: object) -> logging.LogRecord:
    return logging.getLogger("headrace.test").makeRecord(
        "headrace.test", logging.WARNING, "f.py", 1, message, arguments, None, extra=dict(more)
    )


def test_a_line_is_an_object() -> None:
    line = json.loads(JsonLines("router-0").format(record("%s left", "shard-1")))
    at = datetime.fromisoformat(line.pop("time"))
    assert at.tzinfo == UTC
    assert line == {
        "level": "WARNING",
        "logger": "headrace.test",
        "process": "router-0",
        "message": "shard-1 left",
    }


def test_fields_stand_beside_the_message() -> None:
    seen = record("search", **extra({"surface": "gifts ö", "took_ms": 1.5}))
    line = json.loads(JsonLines("router-0").format(seen))
    assert (line["message"], line["surface"], line["took_ms"]) == ("search", "gifts ö", 1.5)
    plain = PlainLines("%(levelname)s %(name)s: %(message)s").format(seen)
    start, brace, fields = plain.partition("{")
    assert start == "WARNING headrace.test: search "
    assert json.loads(brace + fields) == {"surface": "gifts ö", "took_ms": 1.5}


def test_a_line_of_a_traced_search_names_the_trace() -> None:
    with Within(MemorySpan("search")), part("gate"):
        line = json.loads(JsonLines("router-0").format(record("hello")))
    assert line["trace_id"] == "0" * 31 + "1"


def test_a_traceback_stays_within_its_line() -> None:
    try:
        raise ValueError("of\nall")
    except ValueError as error:
        failed = record("it failed")
        failed.exc_info = (type(error), error, error.__traceback__)
    text = JsonLines("shard-0").format(failed)
    assert "\n" not in text
    assert json.loads(text)["error"].endswith("ValueError: of\nall")
