"""Clients that vanish in the middle of a search leave no work behind, neither here nor on the shard."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import grpc.aio

from protos.headrace.v1 import search_service_pb2 as pb
from protos.headrace.v1.search_service_pb2_grpc import SearchServiceStub
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.router.memory_stages import ranked
from tests.router.running_router import placed, running
from tests.router.scripted_shard import Answer, ScriptedShard, hang

RELEASE = Release(
    surface="gifts",
    version="r1",
    channels=(
        ReleaseChannel(name="lexical", model=ModelVersion("words", "1")),
        ReleaseChannel(name="embedding", model=ModelVersion("tower", "1")),
    ),
    retrieval_budget_ms=60_000,
)
CLIENTS = 12


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(8):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def test_what_a_vanished_client_asked_for_is_cancelled_everywhere(tmp_path: Path) -> None:
    async def main() -> None:
        hung: dict[str, Answer] = {"words@1": hang, "tower@1": hang}
        async with ScriptedShard("s1", hung) as shard:
            placement = placed([RELEASE], {model: ["s1"] for model in hung}, {"s1": shard.address})
            async with (
                running(placement, tmp_path, default_deadline_s=10.0) as router,
                grpc.aio.insecure_channel(router.address) as channel,
            ):
                stub = SearchServiceStub(channel)
                request = pb.SearchRequest(surface="gifts", query="mug")
                searches = [stub.Search(request, timeout=9.0) for _ in range(CLIENTS)]
                await until(lambda: shard.active == 2 * CLIENTS)
                assert router.in_flight == CLIENTS
                assert router.in_flight_to_shards == 2 * CLIENTS
                for search in searches:
                    search.cancel()
                await until(lambda: not (shard.active or router.in_flight or router.in_flight_to_shards))
                assert len(shard.calls) == 2 * CLIENTS
                shard.answers |= {"words@1": ranked("a"), "tower@1": ranked("b")}
                assert len((await stub.Search(request, timeout=9.0)).items) == 2

    asyncio.run(main())
