"""A partitioned model over real shards: against the undivided one, short of a replica, and split further."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from protos.headrace.v1 import retrieval_service_pb2, retrieval_service_pb2_grpc, types_pb2
from router.client import Clause, HeadraceClient
from router.client_results import SearchResult
from router.router_config import RouterConfig
from router.router_server import Router
from services.codec import context_to_proto
from shards.partitioning import split
from shards.release import ModelVersion, Release
from tests.router.real_shards import Models, real_shards
from tests.router.running_router import placed, running
from tests.services.in_process_shards import in_process_shards
from tests.services.running_controller import RunningController, running_controller
from tests.shards import bundles

SPLIT = ("neighbours", "two_tower")
PARTITIONS = (2, 4)
QUERIES = ("red mug", "vintage lantern", "pink", "silver")
FILTERS: Sequence[Sequence[Clause]] = (
    (),
    (Clause(attribute="colour", any_of=("red", "ivory")),),
    (Clause(attribute="price_gbp", max=5.0), Clause(attribute="colour", any_of=("red",), negate=True)),
)


def partitioned(release: Release, partitions: int, surface: str) -> Release:
    """Return the release with every channel that can be split so many times divided."""
    channels = [
        replace(channel, partitions=partitions if channel.name in SPLIT else 1)
        for channel in release.channels
    ]
    version = f"{release.version}.of-{partitions}"
    return replace(release, surface=surface, version=version, channels=tuple(channels))


@pytest.fixture(scope="module")
def divided(models: Models) -> Models:
    for name in SPLIT:
        for partitions in PARTITIONS:
            split(models.root, ModelVersion(name, bundles.VERSION), partitions)
    return models


@asynccontextmanager
async def serving(
    models: Models, releases: Sequence[Release], folder: Path, without: Sequence[str] = ()
) -> AsyncIterator[tuple[HeadraceClient, str]]:
    """Serve all releases on two shards; bundles in `without` have no shard in the placement."""
    channels = [replace(c, name=f"{r.surface}-{c.name}") for r in releases for c in r.channels]
    held = Models(root=models.root, release=replace(models.release, channels=tuple(channels)))
    async with real_shards(held, folder, ["s1", "s2"]) as addresses:
        holders = {str(model): list(addresses) for model in held.release.models()}
        holders |= {model: [] for model in without}
        async with (
            running(placed(releases, holders, addresses), folder) as router,
            HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client,
        ):
            yield client, router.address


def seen(result: SearchResult) -> tuple[Any, ...]:
    """Return all that the items of two releases with equal models must have in common."""
    assert result.explanation is not None
    channels = {name: (c.item_ids, dict(c.columns)) for name, c in result.explanation.channels.items()}
    lists = {
        name: (ids, {k: list(v) for k, v in columns.items()}) for name, (ids, columns) in channels.items()
    }
    return result.items, lists


def test_the_cascade_over_partitions_answers_as_over_the_whole(divided: Models, tmp_path: Path) -> None:
    whole = divided.release
    surfaces = {f"of-{p}": partitioned(whole, p, f"of-{p}") for p in PARTITIONS}

    async def main() -> None:
        async with serving(divided, [whole, *surfaces.values()], tmp_path) as (client, _):
            for query in (*bundles.QUERIES, "", "pink"):
                for clauses in FILTERS:
                    asked: dict[str, Any] = {
                        "user_id": "u1",
                        "filter": clauses,
                        "explain": True,
                        "page_size": 20,
                    }
                    expected = await client.search(whole.surface, query, **asked)
                    assert expected.complete
                    for surface, release in surfaces.items():
                        result = await client.search(surface, query, **asked)
                        assert (result.complete, seen(result)) == (True, seen(expected))
                        asked_bundles = {timing.model for timing in result.timings if timing.channel}
                        gated = {str(b) for c in release.channels for b in c.bundles() if c.gated}
                        pinned = {str(b) for c in release.channels for b in c.bundles()}
                        assert asked_bundles in (pinned, pinned - gated)

    asyncio.run(main())


def test_a_partition_without_a_replica_is_named_and_the_others_answer(
    divided: Models, tmp_path: Path
) -> None:
    release = partitioned(divided.release, 4, "shop")
    lost = "two_tower.2-of-4@1"

    async def main() -> tuple[SearchResult, SearchResult]:
        whole = replace(divided.release, surface="whole")
        async with serving(divided, [release, whole], tmp_path, without=[lost]) as (client, _):
            return (
                await client.search("shop", "red mug", explain=True),
                await client.search("whole", "red mug", explain=True),
            )

    partial, whole = asyncio.run(main())
    assert not partial.complete
    (gap,) = partial.gaps
    assert (gap.stage, gap.channel, gap.model) == ("retrieval", "two_tower", lost)
    assert gap.detail == f"no shard holds {lost}"
    assert partial.explanation is not None
    assert whole.explanation is not None
    assert len(partial.items) == len(whole.items)
    there = set(partial.explanation.channels["two_tower"].item_ids)
    assert there - set(whole.explanation.channels["two_tower"].item_ids) != set()
    assert "item-000" in there or "item-100" in there


def test_the_proxy_answers_for_a_partitioned_model_by_its_own_name(divided: Models, tmp_path: Path) -> None:
    request = retrieval_service_pb2.RetrieveRequest(
        model=types_pb2.ModelVersion(model="two_tower"),
        context=context_to_proto(bundles.context("red mug")),
        k=30,
        attributes=["title"],
        attribute_count=3,
    )

    async def ask(address: str) -> Any:
        async with grpc.aio.insecure_channel(address) as channel:
            return await retrieval_service_pb2_grpc.RetrievalServiceStub(channel).Retrieve(
                request, timeout=10
            )

    async def main() -> None:
        async with serving(divided, [divided.release], tmp_path / "whole") as (_, router):
            whole = await ask(router)
        release = partitioned(divided.release, 2, "shop")
        async with serving(divided, [release], tmp_path / "split") as (_, router):
            answer = await ask(router)
            assert answer.candidates == whole.candidates
            assert len(answer.candidates.item_ids) == 30
            assert (answer.header.model.model, answer.header.model.version) == ("two_tower", "1")
            assert set(answer.header.shard_id.split(",")) <= {"s1", "s2"}
        async with serving(divided, [release], tmp_path / "less", ["two_tower.1-of-2@1"]) as (_, router):
            with pytest.raises(grpc.aio.AioRpcError, match=r"no shard holds two_tower\.1-of-2@1"):
                await ask(router)

    (tmp_path / "whole").mkdir()
    (tmp_path / "split").mkdir()
    (tmp_path / "less").mkdir()
    asyncio.run(main())


@asynccontextmanager
async def following(controller: RunningController, folder: Path) -> AsyncIterator[HeadraceClient]:
    """Run a router that follows the controller; gives a client of it that never repeats a search."""
    config = RouterConfig(
        controller=controller.address, cache_path=folder / "router.json", default_deadline_s=5.0, grace_s=0.0
    )
    async with Router(config) as router:
        await router.ready()
        async with HeadraceClient(router.address, timeout_s=10.0, max_attempts=1) as client:
            yield client


@dataclass
class Flow:
    """Searches in turn until it is told to stop; none is repeated, so one that fails ends the test."""

    client: HeadraceClient
    answers: list[tuple[str, SearchResult]] = field(default_factory=list)
    stopped: bool = False

    async def run(self) -> None:
        while not self.stopped:
            for query in QUERIES:
                result = await self.client.search("shop", query, explain=True)
                self.answers.append((query, result))

    async def answered_by(self, release: Release) -> None:
        async with asyncio.timeout(20):
            while (await self.client.search("shop", "red mug")).release != release.version:
                pass


def test_splitting_further_while_searches_flow_loses_none(divided: Models, tmp_path: Path) -> None:
    (tmp_path / "models").symlink_to(divided.root)

    async def deploy_finer(controller: RunningController, flow: Flow) -> None:
        for partitions in PARTITIONS:
            release = partitioned(divided.release, partitions, "shop")
            assert (await controller.deploy(release)).detail.startswith("live")
            await flow.answered_by(release)
        flow.stopped = True

    async def main() -> tuple[Mapping[str, Any], Flow]:
        async with (
            in_process_shards(tmp_path / "state") as host,
            running_controller(tmp_path, host) as controller,
        ):
            assert (await controller.deploy(divided.release)).detail.startswith("live")
            async with following(controller, tmp_path) as client, asyncio.TaskGroup() as group:
                expected = {
                    query: seen(await client.search("shop", query, explain=True)) for query in QUERIES
                }
                flow = Flow(client)
                group.create_task(flow.run())
                group.create_task(deploy_finer(controller, flow))
        return expected, flow

    expected, flow = asyncio.run(main())
    assert {result.release for _, result in flow.answers} == {"r1", "r1.of-2", "r1.of-4"}
    for query, result in flow.answers:
        assert result.complete, result.gaps
        assert seen(result) == expected[query]
        divided_in = result.release.partition(".")[2]
        parts = [timing.model for timing in result.timings if timing.channel in SPLIT]
        # One search uses one release, so one split of every channel.
        assert all(part.endswith(f"{divided_in}@1") for part in parts)
