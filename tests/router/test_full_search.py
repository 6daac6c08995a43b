import asyncio
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from protos.headrace.v1 import retrieval_service_pb2, retrieval_service_pb2_grpc, types_pb2
from router.client import Clause, HeadraceClient
from router.client_results import Explanation, SearchResult
from services.codec import context_to_proto
from services.lmdb_user_store import LmdbUserStore
from services.user_history import UserEvent
from shards.diversity import AttributeQuota, Diversity
from shards.release import ModelVersion
from tests.router.real_shards import Models, real_shards, shard_process
from tests.router.running_router import running
from tests.services.shard_client import connect
from tests.shards.bundles import DAY_MS, ITEMS, NOW_MS, SURFACE, context

CHANNELS = ["lexical", "memory", "neighbours", "again", "two_tower"]


async def users(folder: Path) -> Path:
    bought = ("item-003", "item-117", "item-042", "item-003")
    with LmdbUserStore.open(folder) as store:
        await store.load(
            {},
            [
                UserEvent(
                    user_id="u1", item_id=item_id, action="purchase", timestamp_ms=NOW_MS - (4 - day) * DAY_MS
                )
                for day, item_id in enumerate(bought)
            ],
        )
    return folder


@asynccontextmanager
async def serving(
    models: Models, folder: Path, shard_ids: Iterable[str] = ("s1", "s2")
) -> AsyncIterator[tuple[HeadraceClient, dict[str, str], str]]:
    async with (
        real_shards(models, folder, shard_ids) as addresses,
        running(models.placed_on(addresses), folder, users=await users(folder / "users")) as router,
        HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client,
    ):
        yield client, addresses, router.address


def ids_of(result: SearchResult) -> list[str]:
    return [item.item_id for item in result.items]


def explained(result: SearchResult) -> Explanation:
    assert result.explanation is not None
    return result.explanation


def titles_of(result: SearchResult) -> list[str]:
    return [item.attributes["title"] for item in result.items]


def test_one_shard_answers_for_all_stages_what_several_answer_one_by_one(
    models: Models, tmp_path: Path
) -> None:
    async def main() -> tuple[SearchResult, SearchResult]:
        async with serving(models, tmp_path) as (client, _, _):
            return (
                await client.search(SURFACE, "red mug", user_id="u1"),
                await client.search(SURFACE, "red mug", user_id="u1", explain=True),
            )

    together, apart = asyncio.run(main())
    assert together.items == apart.items
    assert together.complete
    # All that the ranker scored is explained, and only the page is not.
    assert [(t.stage, t.channel, t.candidates) for t in together.timings[:-1]] == [
        (t.stage, t.channel, t.candidates) for t in apart.timings[:-1]
    ]
    assert len({timing.shard_id for timing in together.timings}) == 1


def test_a_search_goes_through_every_stage_to_titles(models: Models, tmp_path: Path) -> None:
    async def main() -> SearchResult:
        async with serving(models, tmp_path) as (client, _, _):
            return await client.search(SURFACE, "red mug", user_id="u1", explain=True)

    result = asyncio.run(main())
    assert (result.complete, result.gaps, result.release) == (True, (), "r1")
    assert len(result.items) == 10
    known = dict(zip(ITEMS.column("item_id").to_pylist(), ITEMS.column("title").to_pylist(), strict=True))
    assert titles_of(result) == [known[item_id] for item_id in ids_of(result)]
    assert [item.score for item in result.items] == sorted((i.score for i in result.items), reverse=True)
    assert {"rank.score", "rank.click", "rank.purchase", "pre_rank.score", "merge.score"} <= result.items[
        0
    ].scores.keys()
    assert {timing.stage for timing in result.timings} == {"retrieval", "pre_ranking", "ranking"}
    assert [timing.channel for timing in result.timings] == [*CHANNELS, "", ""]
    explanation = explained(result)
    assert list(explanation.channels) == CHANNELS
    assert explanation.channels["memory"].item_ids == ["item-000", "item-100"]
    assert "item-003" in explanation.channels["again"].item_ids
    assert (len(explanation.pre_ranked.item_ids), len(explanation.ranked.item_ids)) == (60, 60)
    assert explanation.ranked.item_ids[:10] == ids_of(result)


def test_a_page_is_made_diverse_by_one_shard_or_several(models: Models, tmp_path: Path) -> None:
    quota = AttributeQuota(attribute="colour", at_most=2, within=10)
    diversity = Diversity(relevance=0.7, attributes=("title",), quotas=(quota,), candidates=40)
    diverse = replace(models, release=replace(models.release, attributes=("title",), diversity=diversity))
    colours = dict(zip(ITEMS.column("item_id").to_pylist(), ITEMS.column("colour").to_pylist(), strict=True))

    async def main(asked: Models, folder: Path) -> list[SearchResult]:
        async with serving(asked, folder) as (client, _, _):
            return [
                await client.search(SURFACE, "red mug", user_id="u1", explain=explain)
                for explain in (False, True, False)
            ]

    plain = asyncio.run(main(models, tmp_path / "plain"))[0]
    together, apart, again = asyncio.run(main(diverse, tmp_path / "diverse"))
    assert max(Counter(colours[item_id] for item_id in ids_of(plain)).values()) > 2
    assert max(Counter(colours[item_id] for item_id in ids_of(together)).values()) <= 2
    assert together.items == apart.items == again.items
    assert len(together.items) == 10
    # The colour is read for the quota, and not shown: the release does not name it.
    assert {name for item in together.items for name in item.attributes} == {"title"}
    assert ids_of(together)[0] == ids_of(plain)[0]
    seen = explained(apart)
    for item in together.items:
        assert seen.ranked.item_ids[int(item.scores["diversity.place"]) - 1] == item.item_id
    assert seen.diversified.item_ids[:10] == ids_of(together)
    assert explained(apart).ranked.item_ids[:10] != ids_of(together)


def test_features_tell_what_they_add_to_the_first_items(models: Models, tmp_path: Path) -> None:
    async def main() -> tuple[SearchResult, SearchResult]:
        async with serving(models, tmp_path, ["s1"]) as (client, _, _):
            return (
                await client.search(SURFACE, "red mug", user_id="u1", explain=True, contributions=3),
                await client.search(SURFACE, "zinc spoon", user_id="u1", explain=True, contributions=3),
            )

    result, other = asyncio.run(main())
    assert (result.complete, other.complete) == (True, True)
    told = [item.contributions for item in result.items]
    assert [len(each) > 0 for each in told] == [True] * 3 + [False] * 7
    assert {"title_overlap", "bought_before", "price", "query_ngrams"} <= told[0].keys()
    sizes = [abs(value) for value in told[0].values()]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] > 0
    assert told[0] != other.items[0].contributions


def test_replicas_and_repetition_change_nothing(models: Models, tmp_path: Path) -> None:
    async def main() -> list[SearchResult]:
        async with serving(models, tmp_path) as (client, _, _):
            return [
                await client.search(SURFACE, "vintage lantern", user_id="u1", explain=True) for _ in range(12)
            ]

    results = asyncio.run(main())
    assert len({timing.shard_id for result in results for timing in result.timings}) == 2
    first = results[0]
    for other in results[1:]:
        assert other.items == first.items
        assert explained(other).merged.item_ids == explained(first).merged.item_ids
        for name, column in explained(first).ranked.columns.items():
            np.testing.assert_array_equal(column, explained(other).ranked.columns[name])


def test_the_user_makes_a_difference_and_time_travel_takes_it_away(models: Models, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(models, tmp_path, ["s1"]) as (client, _, _):
            known = await client.search(SURFACE, "mug", user_id="u1", explain=True)
            stranger = await client.search(SURFACE, "mug", user_id="u2", explain=True)
            before = await client.search(
                SURFACE, "mug", user_id="u1", now_ms=NOW_MS - 9 * DAY_MS, explain=True
            )
            browsing = await client.search(SURFACE, user_id="u1", explain=True)
        assert all(result.complete for result in (known, stranger, before, browsing))
        assert explained(known).channels["again"].item_ids != []
        assert explained(stranger).channels["again"].item_ids == []
        assert explained(before).channels["again"].item_ids == []
        assert ids_of(before) == ids_of(stranger)
        assert (browsing.gate.open, browsing.gate.reason) == (True, "no_query")
        assert len(browsing.items) == 10

    asyncio.run(main())


def test_a_filter_holds_in_every_channel(models: Models, tmp_path: Path) -> None:
    async def main() -> None:
        async with serving(models, tmp_path, ["s1"]) as (client, _, _):
            red = Clause(attribute="colour", any_of=("red",))
            cheap = Clause(attribute="price_gbp", max=5.0)
            result = await client.search(SURFACE, "mug", user_id="u1", page_size=100, filter=[red, cheap])
        assert len(result.items) > 3
        assert {item.attributes["colour"] for item in result.items} == {"red"}
        assert max(int(item_id.removeprefix("item-")) for item_id in ids_of(result)) <= 90

    asyncio.run(main())


def test_a_killed_shard_process_fails_no_search(models: Models, tmp_path: Path) -> None:
    async def main() -> list[SearchResult]:
        results = []
        async with (
            shard_process(models, tmp_path, "s1") as doomed,
            real_shards(models, tmp_path, ["s2"]) as addresses,
            running(
                models.placed_on({"s1": doomed.address, **addresses}),
                tmp_path,
                users=await users(tmp_path / "users"),
            ) as router,
            HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client,
        ):
            for turn in range(40):
                if turn == 15:
                    doomed.process.kill()
                results.append(await client.search(SURFACE, "red mug", user_id="u1"))
        return results

    results = asyncio.run(main())
    assert all(result.complete for result in results)
    assert {tuple(ids_of(result)) for result in results} == {tuple(ids_of(results[0]))}
    assert {timing.shard_id for result in results[:15] for timing in result.timings} == {"s1", "s2"}
    assert {timing.shard_id for result in results[25:] for timing in result.timings} == {"s2"}


def test_a_shard_process_that_stands_still_fails_no_search(models: Models, tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            shard_process(models, tmp_path, "s1") as stopped,
            real_shards(models, tmp_path, ["s2"]) as addresses,
            running(models.placed_on({"s1": stopped.address, **addresses}), tmp_path) as router,
            HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client,
        ):

            async def search_until(done: Callable[[set[str]], bool]) -> None:
                async with asyncio.timeout(10):
                    while True:
                        results = await asyncio.gather(
                            *(client.search(SURFACE, "red mug", user_id="u1") for _ in range(4))
                        )
                        assert all(result.complete for result in results)
                        if done({timing.shard_id for result in results for timing in result.timings}):
                            return

            await search_until({"s1", "s2"}.__eq__)
            stopped.process.send_signal(signal.SIGSTOP)
            for _ in range(5):
                await search_until({"s2"}.__eq__)
            stopped.process.send_signal(signal.SIGCONT)
            await search_until({"s1", "s2"}.__eq__)

    asyncio.run(main())


def test_a_model_that_moves_is_followed(models: Models, tmp_path: Path) -> None:
    async def main() -> None:
        ranker = ModelVersion("ranker", "1")
        async with serving(models, tmp_path) as (client, addresses, _), connect(addresses["s1"]) as shard:
            await shard.unload(ranker, owner="s2", generation=2)
            results = [await client.search(SURFACE, "red mug") for _ in range(12)]
        assert all(result.complete for result in results)
        assert {result.timings[-1].shard_id for result in results} == {"s2"}

    asyncio.run(main())


def test_the_proxy_answers_as_the_shard_does(models: Models, tmp_path: Path) -> None:
    request = retrieval_service_pb2.RetrieveRequest(
        model=types_pb2.ModelVersion(model="two_tower"), context=context_to_proto(context("red mug")), k=5
    )

    async def main() -> tuple[Any, Any]:
        async with serving(models, tmp_path, ["s1"]) as (_, addresses, router):
            async with grpc.aio.insecure_channel(router) as channel:
                stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
                proxied = await stub.Retrieve(request, timeout=10)
            async with grpc.aio.insecure_channel(addresses["s1"]) as channel:
                stub = retrieval_service_pb2_grpc.RetrievalServiceStub(channel)
                request.model.version = "1"
                direct = await stub.Retrieve(request, timeout=10)
        return proxied, direct

    proxied, direct = asyncio.run(main())
    assert proxied.candidates == direct.candidates
    assert len(proxied.candidates.item_ids) == 5
    assert (proxied.header.shard_id, proxied.header.model.version) == ("s1", "1")
