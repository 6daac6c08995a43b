"""A real router before real shards, scraped over HTTP while it answers."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from router.client import Event, HeadraceClient, RecordError, SearchError
from router.gate import decide
from router.hedging import HedgeSettings
from router.shard_calls import CallSettings
from services.metrics_targets import metrics_targets
from services.telemetry_settings import ROUTER, MetricsSettings, ProcessTelemetry, Telemetry
from shards.placement import Placement
from shards.release import ModelVersion
from shards.search_context import SearchContext
from tests.router.real_shards import Models, real_shards
from tests.router.running_router import running
from tests.services.scraping import Scraped, scrape
from tests.shards.bundles import SURFACE

NOBODY = "127.0.0.1:1"
"""An address at which nothing listens."""
ONCE = CallSettings(hedging=HedgeSettings(share=0.0, reserve=0.0))
"""On a busy machine a call may have a hedge, which shards count as well."""
PER_MODEL = Telemetry(metrics=MetricsSettings(per_model=True))


def without_ranker(models: Models, addresses: dict[str, str]) -> Placement:
    """Return a placement whose ranker is on a shard that is gone."""
    placement = models.placed_on(addresses)
    ranker = ModelVersion("ranker", "1")
    gone = replace(placement.assignments[ranker], shard_ids=("gone",))
    return replace(
        placement,
        endpoints={**placement.endpoints, "gone": NOBODY},
        assignments={**placement.assignments, ranker: gone},
    )


@asynccontextmanager
async def scraped_cluster(
    models: Models, folder: Path, telemetry: Telemetry, *, whole: bool = True
) -> AsyncIterator[HeadraceClient]:
    """Give a client of a router before shards s1 and s2, all of which note where they are scraped."""
    seen = ProcessTelemetry(role=ROUTER, name="router-0", settings=telemetry, targets_dir=folder / "metrics")
    async with real_shards(models, folder, ["s1", "s2"], telemetry) as addresses:
        placement = models.placed_on(addresses) if whole else without_ranker(models, addresses)
        async with (
            running(placement, folder, telemetry=seen, calls=ONCE) as router,
            HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client,
        ):
            yield client


async def scrape_all(folder: Path) -> dict[str, Scraped]:
    targets = metrics_targets(folder / "metrics")
    return {target.process: await asyncio.to_thread(scrape, target.address) for target in targets}


def test_searches_stages_and_the_gate_are_counted(models: Models, tmp_path: Path) -> None:
    async def main() -> dict[str, Scraped]:
        async with scraped_cluster(models, tmp_path, Telemetry()) as client:
            for _ in range(3):
                await client.search(SURFACE, "red mug", explain=True)
            await client.search(SURFACE, "red mug")
            with pytest.raises(SearchError):
                await client.search("nowhere", "red mug")
            return await scrape_all(tmp_path)

    found = asyncio.run(main())
    assert set(found) == {"router-0", "s1", "s2"}
    router = found["router-0"]
    assert router.value("headrace_router_searches_total", surface=SURFACE, status="ok") == 4
    assert router.value("headrace_router_searches_total", surface="unknown", status="not_found") == 1
    assert router.value("headrace_router_search_seconds_count", surface=SURFACE) == 4
    decided = {"surface": SURFACE, "decision": "open", "reason": "default_open"}
    version = decide(models.release.gate, SearchContext(query="red mug", now_ms=0)).version
    assert router.value("headrace_router_gate_decisions_total", **decided, version=version) == 4
    for stage, channel in (("retrieval", "two_tower"), ("pre-ranking", ""), ("ranking", "")):
        labels = {"surface": SURFACE, "stage": stage, "channel": channel}
        assert router.value("headrace_router_stage_seconds_count", **labels) == 4
        total_s = router.value("headrace_router_stage_seconds_sum", **labels)
        queue_s = router.value("headrace_router_stage_queue_seconds_sum", **labels)
        compute_s = router.value("headrace_router_stage_compute_seconds_sum", **labels)
        assert 0 < compute_s < total_s
        assert 0 <= queue_s < total_s
    assert router.value("headrace_router_in_flight", door="search") == 0
    assert router.value("headrace_router_shed_total", door="search") == 0
    assert (router.value("headrace_router_generation"), router.value("headrace_router_shards")) == (1, 2)


def test_shards_count_calls_memory_and_loads(models: Models, tmp_path: Path) -> None:
    async def main() -> dict[str, Scraped]:
        async with scraped_cluster(models, tmp_path, Telemetry()) as client:
            for _ in range(2):
                await client.search(SURFACE, "red mug", explain=True)
                await client.search(SURFACE, "red mug")
            return await scrape_all(tmp_path)

    found = asyncio.run(main())
    shards = [found["s1"], found["s2"]]

    def total(name: str, **labels: str) -> float:
        return sum(shard.total(name, **labels) for shard in shards)

    assert total("headrace_shard_calls_total", method="cascade", status="ok") == 2
    assert total("headrace_shard_calls_total", method="ranking", status="ok") == 2
    assert total("headrace_shard_calls_total", method="retrieval", status="ok") == 2 * 5
    assert total("headrace_shard_queue_seconds_count", method="cascade") == 2
    assert total("headrace_shard_compute_seconds_sum", method="cascade") > 0
    # By itself and within a cascade.
    assert total("headrace_shard_stage_compute_seconds_count", stage="ranking") == 4
    bundles = len(models.release.models())
    for shard in shards:
        assert shard.value("headrace_shard_bundles", state="ready") == bundles
        assert shard.value("headrace_shard_loads_total", outcome="ok") == bundles
        assert shard.value("headrace_shard_load_seconds_count") == bundles
        assert shard.value("headrace_shard_evictions_total") == 0
        assert shard.value("headrace_shard_memory_bytes", kind="host") > 0
        assert shard.value("headrace_shard_memory_limit_bytes", kind="host") == 0
        assert shard.value("headrace_shard_in_flight") == 0


def test_what_is_missing_and_what_was_tried_again_is_counted(models: Models, tmp_path: Path) -> None:
    async def main() -> Scraped:
        async with scraped_cluster(models, tmp_path, PER_MODEL, whole=False) as client:
            result = await client.search(SURFACE, "red mug")
            assert [gap.reason for gap in result.gaps] == ["unavailable"]
            return (await scrape_all(tmp_path))["router-0"]

    router = asyncio.run(main())
    gap = {"surface": SURFACE, "stage": "ranking", "channel": "", "reason": "unavailable"}
    assert router.value("headrace_router_gaps_total", **gap) == 1
    assert router.value("headrace_router_extra_attempts_total", kind="retry") >= 1
    model = {"surface": SURFACE, "stage": "pre-ranking", "channel": "", "model": "pre_ranker@1"}
    assert router.value("headrace_router_stage_seconds_count", **model) == 1


def test_models_are_told_apart_only_where_that_is_asked_for(models: Models, tmp_path: Path) -> None:
    async def main(folder: Path, telemetry: Telemetry) -> Scraped:
        async with scraped_cluster(models, folder, telemetry) as client:
            await client.search(SURFACE, "red mug", explain=True)
            found = await scrape_all(folder)
            return max(found["s1"], found["s2"], key=lambda s: s.total("headrace_shard_calls_total"))

    apart = asyncio.run(main(tmp_path / "apart", PER_MODEL))
    assert apart.labels("headrace_shard_stage_compute_seconds") == {"stage", "model"}
    together = asyncio.run(main(tmp_path / "together", Telemetry()))
    assert together.labels("headrace_shard_stage_compute_seconds") == {"stage"}


def test_recordings_and_their_events_are_counted(models: Models, tmp_path: Path) -> None:
    async def main() -> Scraped:
        async with scraped_cluster(models, tmp_path, Telemetry()) as client:
            first, second = (Event(user_id="u1", item_id=item_id, action="click") for item_id in "ab")
            await client.record_events([first])
            await client.record_events([first, second])
            with pytest.raises(RecordError):
                await client.record_events([])
            return (await scrape_all(tmp_path))["router-0"]

    router = asyncio.run(main())
    assert router.value("headrace_router_events_total", outcome="recorded") == 2
    assert router.value("headrace_router_events_total", outcome="duplicate") == 1
    assert router.value("headrace_router_recordings_total", status="ok") == 2
    assert router.value("headrace_router_recordings_total", status="invalid_argument") == 1
    assert router.value("headrace_router_recording_seconds_count") == 2
    assert router.value("headrace_router_in_flight", door="event") == 0
