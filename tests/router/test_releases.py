"""Searches for a surface that has more than one release loaded."""

import asyncio
from dataclasses import replace
from pathlib import Path

import grpc
import pytest

from router.client import HeadraceClient, SearchError
from router.client_results import SearchResult
from router.router_config import RouterConfig
from router.router_server import Router
from services.codec import placement_to_proto
from shards.candidates import Candidates
from shards.errors import Unavailable
from shards.placement import Placement
from shards.release import ModelVersion, Release, ReleaseChannel, ReleaseScorer, Traffic
from tests.router.memory_stages import ranked
from tests.router.running_router import placed, running
from tests.router.scripted_controller import ScriptedController
from tests.router.scripted_shard import Answer, Call, ScriptedShard

LIVE = Release(
    surface="gifts",
    version="r1",
    channels=(
        ReleaseChannel(name="lexical", model=ModelVersion("words", "1"), k=5),
        ReleaseChannel(name="ann", model=ModelVersion("tower", "1"), k=5),
    ),
    retrieval_budget_ms=2000,
)
TWO_ANSWERS: dict[str, Answer] = {
    "words@1": ranked("a", "b"),
    "tower@1": ranked("b", "c"),
    "words@2": ranked("x", "y"),
    "heavy@2": ranked("y", "x"),
}


def two_releases() -> Placement:
    """Return a live release and a canary for everybody who is known, on the one shard "s1"."""
    live = LIVE
    canary = Release(
        surface="gifts",
        version="r2",
        channels=(ReleaseChannel(name="lexical", model=ModelVersion("words", "2"), k=5),),
        ranker=ReleaseScorer(model=ModelVersion("heavy", "2"), candidates=4, budget_ms=2000),
        retrieval_budget_ms=2000,
    )
    holders = {model: ["s1"] for model in TWO_ANSWERS}
    both = placed([live, replace(canary, surface="other")], holders, {})
    return replace(
        both,
        releases={"gifts": live},
        traffic={"gifts": Traffic(canary=canary, canary_percent=100.0)},
        aliases={"shop": "gifts", "next": "gifts@canary"},
    )


async def answered_after(generation: int, client: HeadraceClient) -> SearchResult:
    """Return the first answer by a newer placement to somebody who is known."""
    async with asyncio.timeout(10):
        while (result := await client.search("gifts", "mug", user_id="u1")).generation <= generation:
            pass
    return result


def test_the_answer_names_the_release_that_gave_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with ScriptedShard("s1", TWO_ANSWERS) as shard:
            placement = replace(two_releases(), endpoints={"s1": shard.address})
            async with (
                running(placement, tmp_path) as router,
                HeadraceClient(router.address, timeout_s=5.0, max_attempts=1) as client,
            ):
                for surface, user_id, expected in (
                    ("gifts", "", "r1"),
                    ("gifts", "u1", "r2"),
                    ("shop", "u1", "r2"),
                    ("gifts@live", "u1", "r1"),
                    ("gifts@r1", "u1", "r1"),
                    ("next", "", "r2"),
                ):
                    result = await client.search(surface, "mug", user_id=user_id)
                    assert (result.surface, result.release, result.complete) == ("gifts", expected, True)
                    assert {item.item_id for item in result.items} <= set("abc" if expected == "r1" else "xy")
                with pytest.raises(SearchError, match="release 'gifts@r9' does not exist") as caught:
                    await client.search("gifts@r9", "mug")
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.NOT_FOUND, "RELEASE_NOT_FOUND")

    asyncio.run(main())


@pytest.mark.parametrize("explain", [False, True])
def test_a_flip_during_a_search_changes_nothing_of_it(explain: bool) -> None:
    async def main() -> None:
        arrived, flipped = asyncio.Event(), asyncio.Event()

        async def answer_after_the_flip(_: Call) -> Candidates:
            arrived.set()
            await flipped.wait()
            return ranked("x", "y")

        async with (
            ScriptedShard("s1", {**TWO_ANSWERS, "words@2": answer_after_the_flip}) as shard,
            ScriptedController() as controller,
            Router(RouterConfig(controller=controller.address, grace_s=0.0)) as router,
            HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client,
        ):
            canaried = replace(two_releases(), endpoints={"s1": shard.address})
            await controller.publish(placement_to_proto(canaried))
            await router.ready()
            search = asyncio.create_task(client.search("gifts", "mug", user_id="u1", explain=explain))
            await arrived.wait()
            await controller.publish(placement_to_proto(replace(canaried, generation=2, traffic={})))
            # The canary is gone for whoever asks now, and stays for the search that began with it.
            assert (await answered_after(1, client)).release == "r1"
            flipped.set()
            result = await search
        assert (result.release, result.generation, result.complete) == ("r2", 1, True)
        assert [item.item_id for item in result.items] == ["y", "x"]
        assert {timing.model for timing in result.timings} == {"words@2", "heavy@2"}
        assert (result.explanation is not None) is explain

    asyncio.run(main())


def test_a_flip_during_a_search_changes_nothing_of_its_second_attempts() -> None:
    async def main() -> None:
        arrived, flipped = asyncio.Event(), asyncio.Event()

        async def refuse_after_the_flip(_: Call) -> Candidates:
            arrived.set()
            await flipped.wait()
            raise Unavailable("draining")

        async with (
            ScriptedShard("s1", {**TWO_ANSWERS, "words@2": refuse_after_the_flip}) as one,
            ScriptedShard("s2", TWO_ANSWERS) as two,
            ScriptedController() as controller,
            Router(RouterConfig(controller=controller.address, grace_s=0.0)) as router,
            HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client,
        ):
            before = replace(two_releases(), endpoints={"s1": one.address})
            live = replace(LIVE, version="r3", channels=LIVE.channels[:1])
            after = replace(
                before,
                generation=2,
                endpoints={"s2": two.address},
                assignments={
                    model: replace(assignment, shard_ids=("s2",))
                    for model, assignment in before.assignments.items()
                },
                releases={"gifts": live},
                traffic={},
            )
            await controller.publish(placement_to_proto(before))
            await router.ready()
            search = asyncio.create_task(client.search("gifts", "mug", user_id="u1"))
            await arrived.wait()
            await controller.publish(placement_to_proto(after))
            assert (await answered_after(1, client)).release == "r3"
            flipped.set()
            result = await search
        assert (result.release, result.generation, result.complete) == ("r2", 1, True)
        assert {timing.model for timing in result.timings} == {"words@2", "heavy@2"}
        assert result.timings[0].shard_id == "s2"

    asyncio.run(main())
