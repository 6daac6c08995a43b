"""Routers on one port that are told to stop, one after the other, while searches flow."""

import asyncio
import signal
from collections import Counter
from pathlib import Path

import grpc
import grpc.aio

from protos.headrace.v1 import search_service_pb2, search_service_pb2_grpc
from router.client import HeadraceClient
from shards.release import ModelVersion, Release, ReleaseChannel
from tests.abuse.bystander import RETRIES
from tests.deploy.router_processes import router_processes
from tests.router.memory_stages import ranked
from tests.router.running_router import placed
from tests.router.scripted_shard import ScriptedShard

RELEASE = Release(
    surface="gifts",
    version="r1",
    channels=(ReleaseChannel(name="lexical", model=ModelVersion("words", "1")),),
    retrieval_budget_ms=5000,
)


class Load:
    """Searches without end until `enough`; counts answers, and refusals by their code."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.enough, self.news = asyncio.Event(), asyncio.Condition()
        self.counts: Counter[str] = Counter()

    async def client(self) -> None:
        async with HeadraceClient(self._target, timeout_s=20.0) as client:
            while not self.enough.is_set():
                await client.search("gifts", "mug")
                self.counts["client"] += 1
                async with self.news:
                    self.news.notify_all()

    async def plain(self, name: str, *options: tuple[str, int | str]) -> None:
        own = ("grpc.use_local_subchannel_pool", 1)
        async with grpc.aio.insecure_channel(self._target, options=[own, *options]) as channel:
            stub = search_service_pb2_grpc.SearchServiceStub(channel)
            request = search_service_pb2.SearchRequest(surface="gifts", query="mug")
            while not self.enough.is_set():
                try:
                    await stub.Search(request, timeout=20.0)
                    self.counts[name] += 1
                except grpc.aio.AioRpcError as error:
                    self.counts[f"{name} {error.code().name}"] += 1

    async def grown(self, by: int) -> None:
        """Return when the client has so many more answers."""
        wanted = self.counts["client"] + by
        async with asyncio.timeout(60):
            async with self.news:
                await self.news.wait_for(lambda: self.counts["client"] >= wanted)


def test_routers_that_restart_cost_no_search_that_is_retried(tmp_path: Path) -> None:
    async def main() -> Counter[str]:
        async with ScriptedShard("s1", {"words@1": ranked("a")}) as shard:
            placement = placed([RELEASE], {"words@1": ["s1"]}, {"s1": shard.address})
            async with router_processes(placement, tmp_path) as routers, asyncio.TaskGroup() as group:
                running = [await routers.start(), await routers.start()]
                load = Load(routers.target)
                for _ in range(3):
                    group.create_task(load.client())
                    group.create_task(load.plain("policy", ("grpc.service_config", RETRIES)))
                    group.create_task(load.plain("bare", ("grpc.enable_retries", 0)))
                for _ in range(3):
                    await load.grown(by=20)
                    stopping = running.pop(0)
                    stopping.send_signal(signal.SIGTERM)
                    assert await stopping.wait() == 0
                    await load.grown(by=20)
                    running.append(await routers.start())
                load.enough.set()
        return load.counts

    counts = asyncio.run(main())
    # Without retries, what reaches a router that stops meanwhile ends in one of two codes and nothing else.
    assert counts.keys() <= {"client", "policy", "bare", "bare CANCELLED", "bare UNAVAILABLE"}
    assert min(counts["client"], counts["policy"], counts["bare"]) > 20
