import asyncio
import random
from dataclasses import replace
from typing import Any

import pytest

from router.answer import Answer
from router.search_observer import SearchObserver
from services.codec import SearchRequest
from services.telemetry_settings import SILENT
from services.tracing import current
from shards.errors import HeadraceError, InvalidInput, Overloaded, Unavailable
from tests.router.test_search_log import ANSWER, RELEASE
from tests.services.spans import MemoryTracing

ASKED = SearchRequest(surface="gifts", query="very private", user_id="u-77", request_id="q-1")


class CallContext:
    """What an observer asks of gRPC's context."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("traceparent", "from the caller"),)


CONTEXT: Any = CallContext()


def observer(tracing: MemoryTracing | None = None, *, took_s: float = 0.25) -> SearchObserver:
    """Return an observer by whose clock every search takes so long."""
    moments = iter(n * took_s for n in range(100))
    return SearchObserver(SILENT, tracing, clock=lambda: next(moments), rng=random.Random(7))


def fail(watching: SearchObserver, error: BaseException, answer: Answer | None = None) -> None:
    """Watch a search that fails once it is known what is asked, or later."""
    with watching.watching(CONTEXT) as seen:
        seen.asks(ASKED, RELEASE, 3)
        seen.answer = answer
        raise error


def test_an_answered_search_counts_with_its_stages() -> None:
    watching = observer()
    with watching.watching(CONTEXT) as seen:
        seen.asks(ASKED, RELEASE, 3)
        seen.answer = ANSWER
    measures = watching.measures
    assert dict(measures.searches.read()) == {("gifts", "ok"): 1}
    ((_, took),) = measures.search_s.read()
    assert (took.cumulative[-1], took.total) == (1, 0.25)
    ((labels, stage),) = measures.stage_s.read()
    assert (labels, stage.total) == (("gifts", "retrieval", "lexical"), 0.005)
    assert dict(measures.gates.read()) == {("gifts", "open", "default_open", "rules-1"): 1}
    assert measures.gate_probability.read() == []
    assert measures.gaps.read() == []


def test_what_a_model_of_the_gate_expects_is_spread_by_surface() -> None:
    watching = observer()
    for probability in (0.25, 0.75):
        with watching.watching(CONTEXT) as seen:
            seen.asks(ASKED, RELEASE, 3)
            seen.answer = replace(ANSWER, gate=replace(ANSWER.gate, probability=probability))
    ((labels, expected),) = watching.measures.gate_probability.read()
    assert (labels, expected.total, expected.cumulative[-1]) == (("gifts",), 1.0, 2)
    assert expected.cumulative[expected.bounds.index(0.5)] == 1


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Overloaded("full", retry_after_s=1.0), "resource_exhausted"),
        (Unavailable("nobody"), "unavailable"),
        (InvalidInput(), "invalid_argument"),
        (HeadraceError("of no kind that callers know"), "internal"),
        (ZeroDivisionError(), "internal"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
def test_a_search_that_fails_counts_by_its_status_alone(error: BaseException, status: str) -> None:
    watching = observer()
    with pytest.raises(type(error)), watching.watching(CONTEXT):
        raise error
    assert dict(watching.measures.searches.read()) == {("unknown", status): 1}
    with pytest.raises(type(error)):
        fail(watching, error)
    assert dict(watching.measures.searches.read())[("gifts", status)] == 1
    assert watching.measures.search_s.read() == []


def test_an_answer_that_could_not_be_sent_is_no_answer() -> None:
    watching = observer()
    with pytest.raises(ValueError, match="too long"):
        fail(watching, ValueError("too long"), ANSWER)
    assert dict(watching.measures.searches.read()) == {("gifts", "internal"): 1}
    assert watching.measures.gates.read() == []


def test_the_span_of_a_search_is_current_until_it_ends() -> None:
    tracing = MemoryTracing()
    watching = observer(tracing)
    with watching.watching(CONTEXT) as seen:
        assert current() is seen.span is tracing.begun[0]
        seen.asks(ASKED, RELEASE, 3)
        seen.answer = ANSWER
    assert current() is None
    (span,) = tracing.begun
    assert tracing.metadata == [{"traceparent": "from the caller"}]
    assert span.error == ""
    assert "very private" not in str(span.attributes)
    assert "u-77" not in str(span.attributes)
    assert (span.attributes["headrace.surface"], span.attributes["headrace.gaps"]) == ("gifts", [])
