import asyncio
import math
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import FrozenInstanceError, dataclass, field
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.duration_pb2 import Duration

from protos.headrace.v1 import search_service_pb2, search_service_pb2_grpc, types_pb2
from router.client import Clause, HeadraceClient, SearchError
from router.client_results import Gap, Gate, Item, StageList, Timing, decode
from services import chassis
from services.backoff import Backoff
from shards.errors import FieldViolation, InvalidInput, NotFound, Overloaded, Unavailable

FULL = search_service_pb2.SearchResponse(
    items=[
        search_service_pb2.SearchItem(
            item_id="a",
            score=0.5,
            attributes={"title": "A mug"},
            channels=["lexical", "ann"],
            scores={"merge.score": 0.25},
        )
    ],
    gate=search_service_pb2.GateDecision(open=True, reason="default_open", version="rules-1"),
    release=search_service_pb2.ReleaseRef(surface="gifts", version="r1"),
    coverage=types_pb2.Coverage(
        gaps=[
            types_pb2.CoverageGap(
                stage=types_pb2.STAGE_PRE_RANKING,
                model="light@1",
                reason=types_pb2.GAP_REASON_NO_REPLICA,
                detail="gone",
            )
        ]
    ),
    timings=[
        search_service_pb2.StageTiming(
            stage=types_pb2.STAGE_RETRIEVAL,
            channel="ann",
            model="tower@1",
            shard_id="s1",
            total=Duration(seconds=1, nanos=500_000),
            compute=Duration(nanos=250_000),
            candidates=3,
        )
    ],
    explanation=search_service_pb2.Explanation(
        channels=[
            search_service_pb2.ChannelExplanation(
                channel="ann",
                candidates=types_pb2.Candidates(
                    item_ids=["a", "b"], columns=[types_pb2.FloatColumn(name="score", values=[1.0, math.nan])]
                ),
            )
        ],
        merged=types_pb2.Candidates(item_ids=["b"]),
    ),
    request_id="q-1",
    generation=7,
)
PROMPT = Backoff(base_s=0.001, cap_s=0.002)


@dataclass
class ScriptedRouter(search_service_pb2_grpc.SearchServiceServicer):
    """A real server that answers searches with these errors first, and then well."""

    errors: list[Exception] = field(default_factory=list)
    requests: list[search_service_pb2.SearchRequest] = field(default_factory=list)
    timeouts_s: list[float] = field(default_factory=list)
    hangs: bool = False

    async def Search(  # noqa: N802
        self, request: search_service_pb2.SearchRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> search_service_pb2.SearchResponse:
        self.requests.append(request)
        self.timeouts_s.append(context.time_remaining() or math.inf)
        if self.hangs:
            await asyncio.Event().wait()
        if self.errors:
            raise self.errors.pop(0)
        return FULL


@asynccontextmanager
async def client_of(
    router: ScriptedRouter, *, timeout_s: float = 5.0, max_attempts: int = 3, backoff: Backoff = PROMPT
) -> AsyncIterator[HeadraceClient]:
    async with (
        chassis.serve(
            "127.0.0.1:0",
            register=[lambda s: search_service_pb2_grpc.add_SearchServiceServicer_to_server(router, s)],
            service_names=["headrace.v1.SearchService"],
        ) as server,
        HeadraceClient(
            server.address,
            timeout_s=timeout_s,
            max_attempts=max_attempts,
            backoff=backoff,
            rng=random.Random(1),
        ) as client,
    ):
        yield client


async def refused(client: HeadraceClient, **asked: Any) -> SearchError:
    with pytest.raises(SearchError) as caught:
        await client.search("gifts", "mug", **asked)
    return caught.value


def test_a_response_becomes_frozen_values() -> None:
    result = decode(FULL)
    assert result.items == (
        Item(
            item_id="a",
            score=0.5,
            attributes={"title": "A mug"},
            channels=("lexical", "ann"),
            scores={"merge.score": 0.25},
        ),
    )
    assert result.gate == Gate(open=True, reason="default_open", probability=None, version="rules-1")
    assert (result.surface, result.release, result.request_id, result.generation) == ("gifts", "r1", "q-1", 7)
    assert result.complete is False
    assert result.gaps == (
        Gap(stage="pre_ranking", channel="", model="light@1", reason="no_replica", detail="gone"),
    )
    assert result.timings == (
        Timing(
            stage="retrieval",
            channel="ann",
            model="tower@1",
            shard_id="s1",
            total_ms=1000.5,
            compute_ms=0.25,
            candidates=3,
        ),
    )
    assert result.explanation is not None
    assert result.explanation.channels["ann"].item_ids == ["a", "b"]
    assert math.isnan(result.explanation.channels["ann"].columns["score"][1])
    assert result.explanation.merged == StageList(item_ids=["b"], columns={})
    assert result.explanation.ranked == StageList(item_ids=[], columns={})
    with pytest.raises(FrozenInstanceError):
        result.generation = 8  # type: ignore[misc]


def test_a_learned_gate_has_a_probability_and_an_unexplained_search_no_explanation() -> None:
    response = search_service_pb2.SearchResponse(gate=search_service_pb2.GateDecision(probability=0.0))
    assert decode(response).gate.probability == 0.0
    assert decode(response).explanation is None


def test_a_request_carries_what_was_asked() -> None:
    async def main() -> search_service_pb2.SearchRequest:
        router = ScriptedRouter()
        async with client_of(router) as client:
            await client.search(
                "gifts",
                "red mug",
                user_id="u1",
                page_size=7,
                context={"device": "phone", "age": 30, "tags": ["x", "y"]},
                filter=[
                    Clause(attribute="price", min=1.0),
                    Clause(attribute="genre", any_of=("a",), negate=True),
                ],
                now_ms=1_500,
                explain=True,
                request_id="q-1",
            )
            await client.search("gifts")
        plain = router.requests[1]
        assert plain == search_service_pb2.SearchRequest(surface="gifts", filter=types_pb2.Filter())
        assert not plain.HasField("page_size")
        assert not plain.HasField("now")
        return router.requests[0]

    request = asyncio.run(main())
    assert (request.surface, request.query, request.user_id, request.page_size) == (
        "gifts",
        "red mug",
        "u1",
        7,
    )
    assert (request.explain, request.request_id, request.now.ToMilliseconds()) == (True, "q-1", 1_500)
    assert request.context["device"].text == "phone"
    assert request.context["age"].number == 30
    assert list(request.context["tags"].texts.values) == ["x", "y"]
    price, genre = request.filter.clauses
    assert (price.attribute, price.range.min, price.range.HasField("max")) == ("price", 1.0, False)
    assert (genre.attribute, list(genre.any_of.values), genre.negate) == ("genre", ["a"], True)


def test_an_unavailable_router_is_asked_again() -> None:
    async def main() -> None:
        router = ScriptedRouter([Unavailable("a"), Unavailable("b")])
        async with client_of(router) as client:
            assert (await client.search("gifts", "mug")).request_id == "q-1"
        assert len(router.requests) == 3

    asyncio.run(main())


def test_attempts_are_limited() -> None:
    async def main() -> None:
        router = ScriptedRouter([Unavailable(str(turn)) for turn in range(9)])
        async with client_of(router, max_attempts=2) as client:
            error = await refused(client)
        assert (error.code, error.message) == (grpc.StatusCode.UNAVAILABLE, "1")
        assert len(router.requests) == 2

    asyncio.run(main())


def test_an_overloaded_router_is_given_the_time_it_asks_for() -> None:
    async def main() -> None:
        router = ScriptedRouter([Overloaded("busy", retry_after_s=0.2)])
        async with client_of(router) as client:
            started = time.monotonic()
            await client.search("gifts", "mug")
            assert time.monotonic() - started >= 0.2
            router.errors = [Overloaded("busy", retry_after_s=60.0)]
            error = await refused(client)
        assert error.code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert error.retry_after_s == 60.0
        assert error.reason == "OVERLOADED"

    asyncio.run(main())


def test_a_mistake_is_not_repeated_and_names_its_fields() -> None:
    async def main() -> None:
        violations = (FieldViolation("page_size", "is 0"), FieldViolation("query", "is long"))
        router = ScriptedRouter([InvalidInput(*violations), NotFound("surface", "gifts")])
        async with client_of(router) as client:
            mistake, unknown = await refused(client), await refused(client)
        assert len(router.requests) == 2
        assert mistake.code is grpc.StatusCode.INVALID_ARGUMENT
        assert [(v.field, v.description) for v in mistake.violations] == [
            ("page_size", "is 0"),
            ("query", "is long"),
        ]
        assert (unknown.code, unknown.reason) == (grpc.StatusCode.NOT_FOUND, "SURFACE_NOT_FOUND")
        assert str(unknown) == "NOT_FOUND: surface 'gifts' does not exist"

    asyncio.run(main())


def test_all_attempts_share_one_timeout() -> None:
    async def main() -> None:
        router = ScriptedRouter([Unavailable(str(turn)) for turn in range(99)])
        slow = Backoff(base_s=0.2, cap_s=0.2)
        async with client_of(router, max_attempts=99, backoff=slow) as client:
            started = time.monotonic()
            error = await refused(client, timeout_s=0.4)
            assert time.monotonic() - started < 2.0
        # On a busy machine the timeout may also end an attempt under way.
        assert error.code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
        assert len(router.requests) < 9
        assert max(router.timeouts_s) < 0.45

    asyncio.run(main())


def test_a_hung_router_ends_in_a_deadline() -> None:
    async def main() -> None:
        async with client_of(ScriptedRouter(hangs=True)) as client:
            error = await refused(client, timeout_s=0.1)
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED

    asyncio.run(main())


def test_retries_stop_while_most_searches_fail() -> None:
    async def main() -> None:
        router = ScriptedRouter([Unavailable(str(turn)) for turn in range(999)])
        async with client_of(router) as client:
            for _ in range(60):
                await refused(client)
        assert len(router.requests) < 60 + 33

    asyncio.run(main())


def test_no_router_at_all_is_unavailable() -> None:
    async def main() -> None:
        async with chassis.serve("127.0.0.1:0", register=[], service_names=[]) as gone:
            pass
        async with HeadraceClient(gone.address, timeout_s=5.0, backoff=PROMPT) as client:
            error = await refused(client)
        assert error.code is grpc.StatusCode.UNAVAILABLE
        assert (error.violations, error.reason, error.retry_after_s) == ((), "", None)

    asyncio.run(main())
