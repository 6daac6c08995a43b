"""What `make bench-search` makes of its measurements, and the loop of its floor."""

from collections import deque

from services.codec import SearchRequest
from tests.bench.search import Measured, Window, checks_of, figures_of
from tests.bench.search_caller import Load
from tests.bench.search_in_process import closed_loop


def window(**changes: float) -> Window:
    fields = {"throughput": 100.0, "p50_ms": 10.0, "p99_ms": 20.0, "caller_cpu_ms": 0.1} | changes
    return Window(cpu_ms={"process": 5.0}, failed=0, degraded=0, problem="", **fields)


def measured(*, one: float, many: float, throughput: float) -> Measured:
    """Return what was seen of a system: p50 at 1 and 32 in flight, and throughput at 32."""
    return Measured(windows={1: [window(p50_ms=one)], 32: [window(p50_ms=many, throughput=throughput)]})


def missed(found: dict[str, Measured]) -> list[str]:
    figures = {key: figures_of(each) for key, each in found.items()}
    return [check.name for check in checks_of(found, figures) if not check.ok]


def test_aims_are_held_against_the_better_rival() -> None:
    found = {
        "a": measured(one=1.2, many=10, throughput=1_000),
        "b": measured(one=1.7, many=12, throughput=800),
        "c": measured(one=9, many=90, throughput=90),
        "t": measured(one=5, many=41, throughput=199),
        "d": measured(one=1, many=8, throughput=1_100),
    }
    assert missed(found) == []
    found["t"] = measured(one=5, many=39, throughput=201)
    assert missed(found) == [
        "throughput of a against the better c, 32 in flight",
        "p50 of a against the better c, 32 in flight",
    ]


def test_an_aim_at_one_in_flight_is_missed() -> None:
    found = {
        "a": measured(one=1.4, many=10, throughput=1_000),
        "b": measured(one=1.9, many=12, throughput=800),
        "d": measured(one=1, many=8, throughput=1_100),
    }
    assert missed(found) == ["p50 of a against d, 1 in flight", "p50 of b against d, 1 in flight"]


def test_what_went_wrong_is_a_missed_aim() -> None:
    found = {"a": Measured(different=1, broken=["RuntimeError()"])}
    assert missed(found) == ["turns that broke off", "answers of the sample that differ"]


def test_figures_are_medians_over_the_rounds() -> None:
    rounds = [window(throughput=value) for value in (100.0, 300.0, 110.0)]
    assert figures_of(Measured(windows={8: rounds}))["8"]["throughput"] == 110.0


def test_the_loop_answers_every_request_in_turn() -> None:
    requests = deque(SearchRequest(surface="s", query=str(number)) for number in range(7))
    asked: list[str] = []
    result = closed_loop(
        Load(in_flight=3, seconds=0.05), lambda request: asked.append(request.query), requests, workers=2
    )
    assert result.asked == len(asked)
    assert len(result.latencies_ms) >= len(asked) - 3
    assert set(asked) == {str(number) for number in range(7)}
