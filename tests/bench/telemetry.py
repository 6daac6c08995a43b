"""What it costs a search to be seen: `make bench-telemetry`.

Drives the router's observer, and that of a shard, with an answer of four channels and two scorers, on one
thread and without any RPC: what is measured is what is added to each search. Spans are written to a file by
OpenTelemetry's own thread, whose time counts as well.
"""

import argparse
import asyncio
import logging
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from router.answer import Answer, Explanation, StageTiming
from router.coalescing import Coalescing
from router.gate import GateDecision
from router.gatekeeper import Gatekeepers
from router.router_metrics import search_instruments
from router.search_observer import SearchObserver
from services import tracing
from services.codec import SearchRequest
from services.metrics_port import metrics_port
from services.process_log import log_to
from services.stage_observer import StageObserver
from services.telemetry_settings import (
    ROUTER,
    LogSettings,
    MetricsSettings,
    ProcessTelemetry,
    Telemetry,
    TraceSettings,
)
from services.tracing import Tracing, part, running_tracing
from services.worker_pool import Timed
from shards.candidates import EMPTY
from shards.errors import Overloaded
from shards.release import ModelVersion, Release, Stage
from tests.bench.result import at_most, publish
from tests.services.scraping import scrape

AIM_US = 50.0
SCRAPE_AIM_MS = 50.0
CHANNELS = ("lexical", "two_tower", "memory", "neighbours")
RELEASE = Release(surface="gifts", version="r1", channels=())


class CallContext:
    """What an observer asks of gRPC's context."""

    def __init__(self, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self._metadata = metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self._metadata


def answer(rng: random.Random) -> Answer:
    """Return the answer to a search, with times like real ones."""
    stages = [
        *((Stage.RETRIEVAL, channel) for channel in CHANNELS),
        (Stage.PRE_RANKING, ""),
        (Stage.RANKING, ""),
    ]
    return Answer(
        items=(),
        gate=GateDecision(open=True, reason="default_open", version="rules-1"),
        release=RELEASE,
        gaps=(),
        timings=tuple(
            StageTiming(
                stage=stage,
                channel=channel,
                model=ModelVersion(channel or stage.value, "1"),
                shard_id="shard-0",
                total_s=rng.uniform(0.001, 0.02),
                queue_s=rng.uniform(0.0, 0.001),
                compute_s=rng.uniform(0.0005, 0.01),
                candidates=100,
            )
            for stage, channel in stages
        ),
        explanation=Explanation(channels={}, merged=EMPTY),
    )


def per_call_us(call: Callable[[], None], repeats: int) -> float:
    """Return the microseconds of processor time of a call: the best of five rounds."""
    rounds = []
    for _ in range(5):
        began_s = time.process_time()
        for _ in range(repeats):
            call()
        rounds.append((time.process_time() - began_s) / repeats * 1e6)
    return min(rounds)


def search_us(observer: SearchObserver, repeats: int) -> float:
    """Return what watching a search costs, the parts of its trace included."""
    rng = random.Random(7)
    answers = [answer(rng) for _ in range(64)]
    asked = SearchRequest(surface="gifts", query="red mug", request_id="q-1")
    context: Any = CallContext()

    def search() -> None:
        with observer.watching(context) as seen:
            seen.asks(asked, RELEASE, 1)
            with part("gate") as span:
                if span:
                    span.tell({"headrace.gate.reason": "default_open"})
            for name in ("Retrieve", "Retrieve", "Retrieve", "Retrieve", "PreRank", "Rank"):
                with part(name, calls=True) as span:
                    if span:
                        span.tell({"headrace.model": ["words@1"]})
                    tracing.outgoing()
            seen.answer = rng.choice(answers)

    return per_call_us(search, repeats)


def refused_us(repeats: int) -> float:
    """Return what watching a search costs that is refused at once, the most it logs in a second included."""
    observer = SearchObserver(Telemetry())
    context: Any = CallContext()
    full = Overloaded("all places are taken", retry_after_s=0.1)

    def search() -> None:
        try:
            with observer.watching(context):
                raise full
        except Overloaded:
            full.__traceback__ = None

    return per_call_us(search, repeats)


def stage_us(tracing: Tracing | None, repeats: int, metadata: tuple[tuple[str, str], ...] = ()) -> float:
    """Return what watching a stage call costs its shard."""
    observer = StageObserver("shard-0", tracing)
    models = [(ModelVersion("ranker", "1"), Stage.RANKING)]
    context: Any = CallContext(metadata)
    timed = Timed(EMPTY, 0.0002, 0.004)

    def call() -> None:
        with observer.watching("ranking", models, context) as watched:
            watched.timed(timed)

    return per_call_us(call, repeats)


async def traced_us(ratio: float, folder: Path, repeats: int) -> float:
    """Return what watching a search costs where this share of them is traced."""
    settings = Telemetry(traces=TraceSettings(folder=str(folder), ratio=ratio))
    process = ProcessTelemetry(role=ROUTER, name=f"router-{ratio:g}", settings=settings)
    async with running_tracing(process, roots=True) as recorder:
        return search_us(SearchObserver(settings, recorder), repeats)


def scrape_ms(observer: SearchObserver) -> float:
    """Return how long it takes to read the router's figures, in milliseconds of both ends."""
    process = ProcessTelemetry(role=ROUTER, name="router-0", settings=Telemetry())
    with metrics_port(
        process, search_instruments(observer.measures, Coalescing(), Gatekeepers(lambda: 0.0))
    ) as address:
        return min(per_call_us(lambda: void(scrape(address)), 1) for _ in range(5)) / 1e3


def void(_: object) -> None:
    """Drop a value."""


async def measure(folder: Path, repeats: int) -> dict[str, float]:
    """Return every figure."""
    quiet = Telemetry(metrics=MetricsSettings(), logs=LogSettings(slow_ms=0.0))
    sampled = Telemetry(logs=LogSettings(share=0.01, slow_ms=0.0, most_per_s=1_000_000, as_json=True))
    logged = Telemetry(logs=LogSettings(share=1.0, slow_ms=0.0, most_per_s=1_000_000, as_json=True))
    observer = SearchObserver(quiet)
    return {
        "search_us": search_us(observer, repeats),
        "search_per_model_us": search_us(
            SearchObserver(Telemetry(metrics=MetricsSettings(per_model=True), logs=quiet.logs)), repeats
        ),
        "search_logged_1_percent_us": search_us(SearchObserver(sampled), repeats),
        "search_logged_us": search_us(SearchObserver(logged), max(1, repeats // 20)),
        "search_traced_0_percent_us": await traced_us(0.0, folder, repeats),
        "search_traced_1_percent_us": await traced_us(0.01, folder, repeats),
        "search_traced_us": await traced_us(1.0, folder, max(1, repeats // 20)),
        "search_refused_us": refused_us(repeats),
        "stage_us": stage_us(None, repeats),
        "scrape_ms": scrape_ms(observer),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20_000, help="searches in each round")
    options = parser.parse_args()
    logging.getLogger("opentelemetry").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="headrace-bench-") as folder:
        log_to(Path(folder) / "router.log", process="router-0", as_json=True)
        figures = asyncio.run(measure(Path(folder) / "spans", options.repeats))
    publish(
        "telemetry",
        settings={"repeats": options.repeats, "stage_calls": len(CHANNELS) + 2},
        figures=figures,
        checks=[
            at_most("a search, counted", figures["search_us"], AIM_US, "µs"),
            at_most("a search, counted by model", figures["search_per_model_us"], AIM_US, "µs"),
            at_most("a search, 1 % logged", figures["search_logged_1_percent_us"], AIM_US, "µs"),
            at_most("a search, 1 % traced", figures["search_traced_1_percent_us"], 2 * AIM_US, "µs"),
            at_most("a search, refused", figures["search_refused_us"], AIM_US, "µs"),
            at_most("a stage call on a shard, counted", figures["stage_us"], AIM_US, "µs"),
            at_most("a scrape of a router", figures["scrape_ms"], SCRAPE_AIM_MS, "ms"),
        ],
    )


if __name__ == "__main__":
    main()
