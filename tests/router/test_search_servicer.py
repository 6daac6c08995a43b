import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import lmdb
import pytest
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from protos.headrace.v1 import search_service_pb2, search_service_pb2_grpc
from router.client import Clause, HeadraceClient, SearchError
from router.client_results import SearchResult
from services.codec import Retrieval, Scoring
from services.lmdb_user_store import LmdbUserStore
from services.user_history import UserEvent
from shards.candidates import Candidates
from shards.errors import FieldViolation, InvalidInput, Unavailable
from shards.placement import Placement
from shards.release import ModelVersion, Release, ReleaseChannel, ReleaseScorer
from shards.search_context import FilterClause
from tests.router.memory_stages import ranked
from tests.router.running_router import placed, running
from tests.router.scripted_shard import Answer, Call, ScriptedShard, hang

RELEASE = Release(
    surface="gifts",
    version="r1",
    channels=(
        ReleaseChannel(name="lexical", model=ModelVersion("words", "1"), k=5),
        ReleaseChannel(name="ann", model=ModelVersion("tower", "1"), k=5, gated=True),
    ),
    pre_ranker=ReleaseScorer(model=ModelVersion("light", "1"), candidates=8, budget_ms=2000),
    ranker=ReleaseScorer(model=ModelVersion("heavy", "1"), candidates=4, budget_ms=2000),
    merged=10,
    attributes=("title",),
    retrieval_budget_ms=2000,
    history_limit=2,
    as_of_ms=5_000,
)
SEARCH = "/headrace.v1.SearchService/Search"
ANSWERS: dict[str, Answer] = {
    "words@1": ranked("a", "b", titles=2),
    "tower@1": ranked("b", "c", titles=2),
    "light@1": ranked("c", "b", "a", titles=2),
    "heavy@1": ranked("a", "c", "b", titles=2, buy=0.25),
}


def placed_on(*shards: ScriptedShard, release: Release = RELEASE) -> Placement:
    ids = [shard.shard_id for shard in shards]
    holders = dict.fromkeys(ANSWERS, ids)
    return placed([release], holders, {shard.shard_id: shard.address for shard in shards})


@asynccontextmanager
async def client_of(
    folder: Path, *shards: ScriptedShard, release: Release = RELEASE, users: Path | None = None
) -> AsyncIterator[HeadraceClient]:
    async with (
        running(placed_on(*shards, release=release), folder, users=users) as router,
        HeadraceClient(router.address, timeout_s=5.0, max_attempts=1) as client,
    ):
        yield client


def call_of(shard: ScriptedShard, model: str) -> Call:
    return next(call for call in shard.calls if call.model.model == model)


def test_a_search_runs_through_every_stage(tmp_path: Path) -> None:
    async def main() -> SearchResult:
        async with ScriptedShard("s1", ANSWERS) as shard, client_of(tmp_path, shard) as client:
            return await client.search("gifts", "mug", page_size=2, explain=True, request_id="q-1")

    result = asyncio.run(main())
    assert [item.item_id for item in result.items] == ["a", "c"]
    first = result.items[0]
    assert (first.score, first.channels, first.attributes) == (1.0, ("lexical",), {"title": "The a"})
    assert first.scores["rank.buy"] == 0.25
    assert (result.surface, result.release, result.generation, result.request_id) == ("gifts", "r1", 1, "q-1")
    assert (result.gate.open, result.gate.reason, result.gate.probability) == (True, "default_open", None)
    assert (result.complete, result.gaps) == (True, ())
    assert [(timing.stage, timing.channel, timing.model, timing.shard_id) for timing in result.timings] == [
        ("retrieval", "lexical", "words@1", "s1"),
        ("retrieval", "ann", "tower@1", "s1"),
        ("pre_ranking", "", "light@1", "s1"),
        ("ranking", "", "heavy@1", "s1"),
    ]
    assert [timing.compute_ms for timing in result.timings] == [1.0] * 4
    assert min(timing.total_ms for timing in result.timings) > 0
    assert [timing.candidates for timing in result.timings] == [2, 2, 3, 3]
    assert result.explanation is not None
    assert result.explanation.channels["ann"].item_ids == ["b", "c"]
    assert result.explanation.merged.item_ids == ["b", "a", "c"]
    assert result.explanation.pre_ranked.columns["pre_rank.score"] == [1.0, 0.75, 0.5]
    assert result.explanation.ranked.item_ids == ["a", "c", "b"]


def test_a_search_is_not_explained_unasked_and_gets_an_id(tmp_path: Path) -> None:
    async def main() -> None:
        async with ScriptedShard("s1", ANSWERS) as shard, client_of(tmp_path, shard) as client:
            one, two = await client.search("gifts", "mug"), await client.search("gifts", "mug")
        assert one.explanation is None
        assert len(one.request_id) > 15
        assert one.request_id != two.request_id
        assert one.items == two.items

    asyncio.run(main())


async def stored_user(folder: Path) -> Path:
    with LmdbUserStore.open(folder) as store:
        await store.load(
            {"u1": {"age": 30.0}},
            [UserEvent(user_id="u1", item_id=f"i{t}", action="buy", timestamp_ms=t * 1000) for t in range(8)],
        )
    return folder


def test_the_user_as_of_the_moment_travels_with_every_call(tmp_path: Path) -> None:
    async def main() -> ScriptedShard:
        users = await stored_user(tmp_path / "users")
        async with ScriptedShard("s1", ANSWERS) as shard, client_of(tmp_path, shard, users=users) as client:
            await client.search("gifts", "mug", user_id="u1", context={"device": "phone"})
            assert len({str(call.context) for call in shard.calls}) == 1
            await client.search("gifts", "mug", user_id="u1", now_ms=2_000)
            return shard

    released, asked = asyncio.run(main()).calls[0].context, asyncio.run(main()).calls[-1].context
    assert released.now_ms == 5_000
    assert released.user.user_id == "u1"
    assert released.user.features == {"age": 30.0}
    assert released.user.history.item_ids == ("i3", "i4")
    assert released.features == {"device": "phone"}
    assert (asked.now_ms, asked.user.history.item_ids) == (2_000, ("i0", "i1"))


def test_an_unknown_user_and_a_stranger_have_no_history(tmp_path: Path) -> None:
    async def main() -> None:
        users = await stored_user(tmp_path / "users")
        async with ScriptedShard("s1", ANSWERS) as shard, client_of(tmp_path, shard, users=users) as client:
            for user_id in ("nobody", "", "x" * 2_000):
                result = await client.search("gifts", "mug", user_id=user_id)
                assert result.complete
                assert shard.calls[-1].context.user.user_id == user_id
                assert shard.calls[-1].context.user.history.item_ids == ()

    asyncio.run(main())


def test_a_damaged_user_is_answered_as_a_stranger_and_named(tmp_path: Path) -> None:
    async def main() -> None:
        users = await stored_user(tmp_path / "users")
        with lmdb.open(str(users)) as environment, environment.begin(write=True) as transaction:
            transaction.put(b"u1", b"HRU1 and then nothing that makes sense")
        async with ScriptedShard("s1", ANSWERS) as shard, client_of(tmp_path, shard, users=users) as client:
            result = await client.search("gifts", "mug", user_id="u1")
        assert len(result.items) == 3
        assert not result.complete
        assert [(gap.stage, gap.reason) for gap in result.gaps] == [("unspecified", "failed")]
        assert "unreadable" in result.gaps[0].detail

    asyncio.run(main())


def test_the_filter_and_the_page_reach_the_shards(tmp_path: Path) -> None:
    async def main() -> None:
        async with ScriptedShard("s1", ANSWERS) as shard, client_of(tmp_path, shard) as client:
            clauses = [
                Clause(attribute="price", max=9.5),
                Clause(attribute="genre", any_of=("x",), negate=True),
            ]
            await client.search("gifts", "mug", filter=clauses, page_size=2)
        words, heavy = call_of(shard, "words"), call_of(shard, "heavy")
        assert isinstance(words, Retrieval)
        assert isinstance(heavy, Scoring)
        assert words.filter == (
            FilterClause(attribute="price", max=9.5),
            FilterClause(attribute="genre", any_of=("x",), negate=True),
        )
        assert (heavy.keep, heavy.attributes, heavy.attribute_count) == (2, ("title",), 2)

    asyncio.run(main())


def test_the_deadline_and_the_budgets_are_passed_on(tmp_path: Path) -> None:
    async def main() -> None:
        quick = replace(RELEASE, retrieval_budget_ms=100)
        async with (
            ScriptedShard("s1", {**ANSWERS, "tower@1": hang}) as shard,
            client_of(tmp_path, shard, release=quick) as client,
        ):
            await client.search("gifts", "mug", timeout_s=1.5)
        timeouts_s = dict(zip((call.model.model for call in shard.calls), shard.timeouts_s, strict=True))
        assert timeouts_s.keys() == {"words", "tower", "light", "heavy"}
        for model, most_s in {"words": 0.1, "tower": 0.1, "light": 1.4, "heavy": 1.4}.items():
            given_s = timeouts_s[model]
            assert given_s is not None
            assert most_s / 2 < given_s < most_s + 0.05

    asyncio.run(main())


def test_hung_shards_end_in_a_deadline_not_in_a_hang(tmp_path: Path) -> None:
    async def main() -> None:
        hung = dict.fromkeys(ANSWERS, hang)
        async with ScriptedShard("s1", {**hung}) as shard, client_of(tmp_path, shard) as client:
            with pytest.raises(SearchError) as caught:
                await client.search("gifts", "mug", timeout_s=0.3)
            assert caught.value.code is grpc.StatusCode.DEADLINE_EXCEEDED

    asyncio.run(main())


def test_a_hung_channel_is_a_gap(tmp_path: Path) -> None:
    async def main() -> None:
        async with ScriptedShard("s1", {**ANSWERS, "tower@1": hang}) as shard:
            quick = Release(surface="gifts", version="r1", channels=RELEASE.channels, retrieval_budget_ms=100)
            async with client_of(tmp_path, shard, release=quick) as client:
                result = await client.search("gifts", "mug")
        assert [item.item_id for item in result.items] == ["a", "b"]
        assert [(gap.channel, gap.reason) for gap in result.gaps] == [("ann", "deadline")]

    asyncio.run(main())


def test_a_mistake_that_shards_find_reaches_the_caller(tmp_path: Path) -> None:
    async def main() -> None:
        mistake = InvalidInput(FieldViolation("filter.clauses[0].attribute", "is unknown"))
        async with (
            ScriptedShard("s1", {"words@1": mistake, "tower@1": mistake}) as shard,
            client_of(tmp_path, shard) as client,
        ):
            with pytest.raises(SearchError) as caught:
                await client.search("gifts", "mug")
        assert caught.value.code is grpc.StatusCode.INVALID_ARGUMENT
        assert [v.field for v in caught.value.violations] == ["filter.clauses[0].attribute"]

    asyncio.run(main())


def test_a_shard_that_dies_in_a_loop_of_searches_fails_none(tmp_path: Path) -> None:
    async def main() -> None:
        results = []
        async with (
            ScriptedShard("s1", ANSWERS) as one,
            ScriptedShard("s2", ANSWERS) as two,
            client_of(tmp_path, one, two) as client,
        ):
            for turn in range(60):
                if turn == 20:
                    await one.kill()
                results.append(await client.search("gifts", f"mug {turn}"))
        assert all(result.complete for result in results)
        assert {timing.shard_id for result in results[20:] for timing in result.timings} == {"s2"}
        assert {tuple(item.item_id for item in result.items) for result in results} == {("a", "c", "b")}

    asyncio.run(main())


def test_what_only_a_dead_shard_held_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        lexical: dict[str, Answer] = {"words@1": ANSWERS["words@1"]}
        rest = {model: answer for model, answer in ANSWERS.items() if model != "words@1"}
        async with ScriptedShard("s1", lexical) as one, ScriptedShard("s2", rest) as two:
            holders = {model: ["s1" if model == "words@1" else "s2"] for model in ANSWERS}
            placement = placed([RELEASE], holders, {"s1": one.address, "s2": two.address})
            async with (
                running(placement, tmp_path) as router,
                HeadraceClient(router.address, timeout_s=5.0, max_attempts=1) as client,
            ):
                await one.kill()
                without_words = await client.search("gifts", "mug")
                await two.kill()
                with pytest.raises(SearchError) as caught:
                    await client.search("gifts", "mug")
        assert [item.item_id for item in without_words.items] == ["c", "b"]
        assert [(gap.stage, gap.channel, gap.reason) for gap in without_words.gaps] == [
            ("retrieval", "lexical", "unavailable")
        ]
        assert caught.value.code is grpc.StatusCode.UNAVAILABLE

    asyncio.run(main())


def test_load_beyond_the_limit_is_shed_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        arrived = asyncio.Event()

        async def hang_aloud(call: Call) -> Candidates:
            arrived.set()
            return await hang(call)

        async with (
            ScriptedShard("s1", {"words@1": hang_aloud, "tower@1": Unavailable("busy")}) as shard,
            running(placed_on(shard), tmp_path, max_in_flight=1) as router,
            grpc.aio.insecure_channel(router.address) as channel,
        ):
            stub = search_service_pb2_grpc.SearchServiceStub(channel)
            request = search_service_pb2.SearchRequest(surface="gifts", query="mug")
            first = asyncio.ensure_future(stub.Search(request, timeout=30))
            await arrived.wait()
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Search(request, timeout=30)
            raw: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(SEARCH)
            with pytest.raises(grpc.aio.AioRpcError) as unread:
                await raw(b"no message", timeout=30)
            first.cancel()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert unread.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        status = rpc_status.from_call(caught.value)
        retry = error_details_pb2.RetryInfo()
        assert any(detail.Unpack(retry) for detail in status.details)
        assert retry.retry_delay.ToMilliseconds() == 100

    asyncio.run(main())
