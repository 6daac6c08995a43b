"""Shadow searches through a real router, and what the controller hears of them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from protos.headrace.v1 import cluster_service_pb2
from router.client import HeadraceClient
from router.router_config import RouterConfig
from router.router_server import Router
from router.shadow_reporter import ShadowReporter
from services.access import AccessRules, Caller, Role, digest
from services.codec import placement_to_proto
from shards.candidates import Candidates
from shards.errors import Unavailable
from shards.placement import Placement
from shards.release import ModelVersion, Release, ReleaseChannel, Traffic
from shards.shadow import ShadowReport
from tests.router.memory_stages import ranked
from tests.router.running_router import placed
from tests.router.scripted_controller import ScriptedController
from tests.router.scripted_shard import Answer, Call, ScriptedShard, hang


def release(version: str) -> Release:
    return Release(
        surface="gifts",
        version=version,
        channels=(ReleaseChannel(name="lexical", model=ModelVersion("words", version), k=5),),
        retrieval_budget_ms=3000,
    )


def shadowed(shard: ScriptedShard, percent: float = 100.0) -> Placement:
    live, shadow = release("1"), release("2")
    both = placed(
        [live, replace(shadow, surface="other")],
        {"words@1": ["s1"], "words@2": ["s1"]},
        {"s1": shard.address},
    )
    traffic = Traffic(shadow=shadow, shadow_percent=percent)
    return replace(both, releases={"gifts": live}, traffic={"gifts": traffic})


@asynccontextmanager
async def shadowing(
    answers: dict[str, Answer], *, percent: float = 100.0, **settings: Any
) -> AsyncIterator[tuple[ScriptedController, HeadraceClient]]:
    async with (
        ScriptedShard("s1", answers) as shard,
        ScriptedController(placement_to_proto(shadowed(shard, percent))) as controller,
        Router(
            RouterConfig(
                **{"controller": controller.address, "shadow_report_s": 0.05, "grace_s": 0.0, **settings}
            )
        ) as router,
        HeadraceClient(router.address, timeout_s=5.0, max_attempts=1) as client,
    ):
        await router.ready()
        yield controller, client


async def reported(controller: ScriptedController, searches: int) -> cluster_service_pb2.ShadowReport:
    """Return the sums, once the controller has heard of so many searches."""
    total = cluster_service_pb2.ShadowReport()
    async with asyncio.timeout(10):
        while total.searches + total.failures < searches:
            report = await controller.reports.get()
            assert (report.surface, report.release_version) == ("gifts", "2")
            for name in ("searches", "failures", "overlap_sum", "common_items", "rank_difference_sum"):
                setattr(total, name, getattr(total, name) + getattr(report, name))
    return total


def test_a_shadow_answers_the_same_search_and_is_compared() -> None:
    async def main() -> None:
        answers: dict[str, Answer] = {"words@1": ranked("a", "b"), "words@2": ranked("b", "x")}
        async with shadowing(answers) as (controller, client):
            for n in range(6):
                result = await client.search("gifts", "mug", user_id="u1", request_id=f"q-{n}")
                assert (result.release, [item.item_id for item in result.items]) == ("1", ["a", "b"])
            total = await reported(controller, 6)
        assert (total.searches, total.failures, total.common_items) == (6, 0, 6)
        assert (total.overlap_sum, total.rank_difference_sum) == (3.0, 6.0)

    asyncio.run(main())


def test_an_answer_never_waits_for_the_shadow() -> None:
    async def main() -> None:
        answers: dict[str, Answer] = {"words@1": ranked("a"), "words@2": hang}
        async with shadowing(answers, max_shadows=2) as (controller, client):
            results = [await client.search("gifts", "mug") for _ in range(10)]
            assert all(result.complete for result in results)
            # Eight were dropped, as two shadow searches hung; only those two are the shadow's failures.
            total = await reported(controller, 2)
            assert controller.reports.empty()
        assert (total.searches, total.failures) == (0, 2)

    asyncio.run(main())


def test_only_a_share_is_shadowed_and_searches_for_other_releases_are_not() -> None:
    async def main() -> None:
        asked = []

        async def remember(call: Call) -> Candidates:
            asked.append(call.context.query)
            return ranked("b")

        answers: dict[str, Answer] = {"words@1": ranked("a"), "words@2": remember}
        async with shadowing(answers, percent=50.0, max_shadows=100) as (controller, client):
            for n in range(40):
                await client.search("gifts", f"mug {n}", request_id=f"q-{n}")
            await reported(controller, 10)
            share = len(asked)
            await client.search("gifts@shadow", "pinned", request_id="q-0")
            assert asked[share:] == ["pinned"]
        assert 10 <= share <= 30

    asyncio.run(main())


def test_a_busy_router_runs_no_shadow() -> None:
    async def main() -> None:
        arrived, go_on = asyncio.Event(), asyncio.Event()
        shadow_asked = asyncio.Event()

        async def answer_slow_queries_late(call: Call) -> Candidates:
            if call.context.query == "slow":
                arrived.set()
                await go_on.wait()
            return ranked("a")

        async def tell(_: Call) -> Candidates:
            shadow_asked.set()
            return ranked("a")

        answers: dict[str, Answer] = {"words@1": answer_slow_queries_late, "words@2": tell}
        async with shadowing(answers, max_in_flight=2) as (controller, client):
            slow = asyncio.create_task(client.search("gifts", "slow"))
            await arrived.wait()
            await client.search("gifts", "quick")
            assert (await client.search("gifts", "quick")).complete
            assert not shadow_asked.is_set()
            go_on.set()
            await slow
            assert (await reported(controller, 1)).searches == 1

    asyncio.run(main())


def test_a_shadow_that_fails_is_counted_and_nobody_notices() -> None:
    async def main() -> None:
        answers: dict[str, Answer] = {"words@1": ranked("a"), "words@2": Unavailable("cold")}
        async with shadowing(answers) as (controller, client):
            assert (await client.search("gifts", "mug")).complete
            total = await reported(controller, 1)
        assert (total.searches, total.failures) == (0, 1)

    asyncio.run(main())


def test_the_last_report_is_sent_when_the_router_stops() -> None:
    async def main() -> None:
        compared = asyncio.Event()

        async def tell(_: Call) -> Candidates:
            compared.set()
            return ranked("a")

        answers: dict[str, Answer] = {"words@1": ranked("a"), "words@2": tell}
        async with (
            ScriptedShard("s1", answers) as shard,
            ScriptedController(placement_to_proto(shadowed(shard))) as controller,
        ):
            config = RouterConfig(controller=controller.address, shadow_report_s=60.0, grace_s=0.0)
            async with Router(config) as router, HeadraceClient(router.address, timeout_s=5.0) as client:
                await router.ready()
                await client.search("gifts", "mug")
                await compared.wait()
                # The second answer comes after the first shadow's, which is compared by then.
                await client.search("gifts@live", "mug")
                await client.search("gifts", "mug", request_id="again")
            assert controller.reports.get_nowait().searches >= 1

    asyncio.run(main())


def test_reports_need_the_role_of_the_clusters_own() -> None:
    async def main() -> None:
        router = Caller(name="router", token_sha256=digest("secret"), roles=(Role.INTERNAL,))
        rules = AccessRules(callers=(router,))
        report = ShadowReport(surface="gifts", version="2", searches=1)
        async with ScriptedController(access=lambda: rules) as controller:
            for token, heard in ((None, 0), ("secret", 1)):
                reporter = ShadowReporter(controller.address, token, interval_s=60.0)
                reporter.add(report)
                await reporter.flush()
                assert controller.reports.qsize() == heard

    asyncio.run(main())


def test_reports_add_up_while_the_controller_is_away() -> None:
    async def main() -> None:
        controller = ScriptedController()
        async with controller:
            pass
        reporter = ShadowReporter(controller.address, None, interval_s=60.0)
        one = ShadowReport(surface="gifts", version="2", searches=1, overlap_sum=0.5)
        for report in (one, one, replace(one, version="3")):
            reporter.add(report)
            await reporter.flush()
        async with controller:
            async with asyncio.timeout(10):
                while controller.reports.qsize() < 2:
                    await reporter.flush()
            heard = [controller.reports.get_nowait() for _ in range(2)]
        assert [(r.release_version, r.searches, r.overlap_sum) for r in heard] == [
            ("2", 2, 1.0),
            ("3", 1, 0.5),
        ]

    asyncio.run(main())


def test_what_is_kept_for_an_absent_controller_is_bounded() -> None:
    async def main() -> None:
        async with ScriptedController() as controller:
            reporter = ShadowReporter(controller.address, None, interval_s=60.0)
            for n in range(100):
                reporter.add(ShadowReport(surface="gifts", version=str(n), searches=1))
            await reporter.flush()
            kept = [controller.reports.get_nowait().release_version for _ in range(64)]
            assert controller.reports.empty()
        assert kept == [str(n) for n in range(36, 100)]

    asyncio.run(main())


@pytest.mark.parametrize("settings", [{"max_shadows": -1}, {"shadow_report_s": 0.0}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="max_shadows"):
        RouterConfig(controller="h:1", **settings)
