import asyncio
import subprocess
import sys
from typing import Any

import pytest

from services.stage_observer import StageObserver
from services.telemetry_settings import ROUTER, ProcessTelemetry
from services.tracing import Within, current, outgoing, part, running_tracing
from services.worker_pool import Timed
from shards.candidates import EMPTY
from shards.cascade import CascadeResult, StepDone
from shards.errors import NotOwner
from shards.release import ModelVersion, Stage
from tests.services.spans import MemorySpan, MemoryTracing

TOWER, RANKER = ModelVersion("tower", "1"), ModelVersion("ranker", "1")


class CallContext:
    """What an observer asks of gRPC's context."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return (("traceparent", "from the router"),)


CONTEXT: Any = CallContext()


def test_without_a_span_there_is_nothing_to_tell_and_nothing_to_send() -> None:
    with part("gate") as span:
        assert span is None
        assert current() is None
        assert outgoing() is None


def test_parts_are_parts_of_what_is_under_way() -> None:
    root = MemorySpan("search")
    with Within(root):
        with part("gate") as gate:
            assert current() is gate
        with part("Rank", calls=True):
            assert outgoing() == (("traceparent", root.traceparent),)
        assert current() is root
    assert current() is None
    assert [(span.name, span.calls, span.error) for span in root.parts] == [
        ("gate", False, ""),
        ("Rank", True, ""),
    ]
    assert root.error == ""


def test_a_part_that_fails_says_by_what() -> None:
    root = MemorySpan("search")
    with pytest.raises(NotOwner), Within(root), part("Rank"):
        raise NotOwner("ranker@1")
    assert (root.error, root.parts[0].error) == ("NotOwner", "NotOwner")


def test_tasks_work_for_the_span_that_started_them() -> None:
    root = MemorySpan("search")

    async def ask(name: str) -> None:
        with part(name):
            await asyncio.sleep(0)
            with part(f"{name}.1"):
                await asyncio.sleep(0)

    async def main() -> None:
        with Within(root):
            async with asyncio.TaskGroup() as group:
                for name in ("a", "b"):
                    group.create_task(ask(name))

    asyncio.run(main())
    assert [(span.name, [inner.name for inner in span.parts]) for span in root.parts] == [
        ("a", ["a.1"]),
        ("b", ["b.1"]),
    ]


def test_nothing_records_where_nothing_is_set_up() -> None:
    async def main() -> None:
        async with running_tracing(ProcessTelemetry(role=ROUTER, name="router-0"), roots=True) as tracing:
            assert tracing is None

    asyncio.run(main())


def test_a_shard_tells_queue_and_compute_of_each_step() -> None:
    tracing = MemoryTracing()
    observer = StageObserver("s1", tracing)
    models = [(TOWER, Stage.RETRIEVAL), (RANKER, Stage.RANKING)]
    done = tuple(StepDone(model=model, compute_s=0.25, candidates=7) for model, _ in models)
    with observer.watching("cascade", models, CONTEXT) as watched:
        watched.timed(Timed(CascadeResult(candidates=EMPTY, done=done), 0.125, 0.5))
    (span,) = tracing.begun
    assert tracing.metadata == [{"traceparent": "from the router"}]
    assert (span.name, span.attributes["headrace.shard"]) == ("shard.cascade", "s1")
    queue, compute = span.parts
    assert _length_s(queue) == pytest.approx(0.125)
    assert _length_s(compute) == pytest.approx(0.5)
    assert queue.times_ns[1] == compute.times_ns[0]
    assert [step.name for step in compute.parts] == ["retrieval", "ranking"]
    assert [_length_s(step) for step in compute.parts] == pytest.approx([0.25, 0.25])
    assert [step.attributes["headrace.candidates"] for step in compute.parts] == [7, 7]


def _length_s(span: MemorySpan) -> float:
    start_ns, end_ns = span.times_ns
    assert start_ns is not None
    assert end_ns is not None
    return (end_ns - start_ns) / 1e9


def test_a_shard_counts_what_it_refuses_by_status() -> None:
    observer = StageObserver("s1")
    with pytest.raises(NotOwner), observer.watching("ranking", [(RANKER, Stage.RANKING)], CONTEXT):
        raise NotOwner("ranker@1")
    assert dict(observer.calls.read()) == {("ranking", "failed_precondition"): 1}
    assert observer.queue_s.read() == []


def test_opentelemetry_is_not_even_imported_where_traces_are_off() -> None:
    code = "import sys, router.router_server, services.stage_observer; print('opentelemetry' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_traces_without_opentelemetry_are_refused_with_what_to_install() -> None:
    code = """if True:
        import asyncio, sys
        sys.modules["opentelemetry"] = None
        from services.telemetry_settings import ProcessTelemetry, Telemetry, TraceSettings
        from services.tracing import running_tracing
        from shards.errors import Unavailable
        settings = Telemetry(traces=TraceSettings(folder="nowhere"))
        router = ProcessTelemetry(role="router", name="router-0", settings=settings)
        async def main():
            async with running_tracing(router, roots=True):
                pass
        try:
            asyncio.run(main())
        except Unavailable as error:
            print(error)
    """
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip().endswith("pip install 'headrace[telemetry]'")
