"""Gates come with their release: read before the placement is used, left out if they are bad."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from protos.headrace.v1 import cluster_service_pb2
from router.client import HeadraceClient
from router.client_results import Gate
from router.gate_models import GateModels
from router.router_config import RouterConfig
from router.router_server import Router
from services.codec import placement_to_proto
from shards.gate_model import GATE_FILE
from shards.placement import Placement
from shards.release import GateRules, ModelVersion, Release, ReleaseChannel, Traffic
from tests.router.memory_stages import ranked
from tests.router.running_router import placed
from tests.router.scripted_controller import ScriptedController
from tests.router.scripted_shard import Answer, ScriptedShard
from tests.shards.gates import gate_model, write_gate

ANSWERS: dict[str, Answer] = {"words@1": ranked("a", "b"), "tower@1": ranked("c", "a")}


def gate_version(version: str) -> ModelVersion:
    return ModelVersion("gifts-gate", version)


def release(version: str, **rules: object) -> Release:
    """Return a release whose gate has its own model of the same version."""
    gate = GateRules(mode="before", model=gate_version(version), target_rate=0.5)
    return Release(
        surface="gifts",
        version=version,
        gate=replace(gate, **rules),  # type: ignore[arg-type]
        channels=(
            ReleaseChannel(name="lexical", model=ModelVersion("words", "1"), k=5),
            ReleaseChannel(name="ann", model=ModelVersion("tower", "1"), k=5, gated=True),
        ),
        retrieval_budget_ms=2000,
    )


def placement_of(live: Release, address: str, generation: int = 1) -> Placement:
    placement = placed([live], {"words@1": ["s1"], "tower@1": ["s1"]}, {"s1": address})
    return replace(placement, generation=generation)


@asynccontextmanager
async def serving(
    root: Path, live: Release
) -> AsyncIterator[tuple[ScriptedController, ScriptedShard, HeadraceClient]]:
    async with (
        ScriptedShard("s1", ANSWERS) as shard,
        ScriptedController(placement_to_proto(placement_of(live, shard.address))) as controller,
        Router(
            RouterConfig(controller=controller.address, bundle_root=root, grace_s=0.0, shadow_report_s=0.05)
        ) as router,
        HeadraceClient(router.address, timeout_s=5.0, max_attempts=1) as client,
    ):
        await router.ready()
        yield controller, shard, client


async def decided(client: HeadraceClient, query: str, *, after: int = 0) -> Gate:
    """Return the gate's decision, by the first answer of a placement newer than `after`."""
    async with asyncio.timeout(10):
        while True:
            result = await client.search("gifts", query)
            if result.gate.probability is not None:
                assert result.gate.version == f"gifts-gate@{result.release}"
            if result.generation > after:
                return result.gate


def test_a_flip_swaps_the_gate_with_the_release(tmp_path: Path) -> None:
    write_gate(tmp_path, gate_model(gate_version("1")))
    write_gate(tmp_path, gate_model(gate_version("2"), sign=-1.0))

    async def main() -> None:
        async with serving(tmp_path, release("1")) as (controller, shard, client):
            gate = await decided(client, "a big red mug")
            assert (gate.open, gate.version, gate.reason) == (True, "gifts-gate@1", "gain_likely")
            assert gate.probability is not None
            assert gate.threshold == pytest.approx(0.5)
            await controller.publish(placement_to_proto(placement_of(release("2"), shard.address, 2)))
            gate = await decided(client, "a big red mug", after=1)
            assert (gate.open, gate.version) == (False, "gifts-gate@2")

    asyncio.run(main())


@pytest.mark.parametrize("fault", ["missing", "altered"])
def test_a_gate_that_cannot_be_read_leaves_the_rules_alone_with_a_reason(
    tmp_path: Path, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    if fault == "altered":
        path = write_gate(tmp_path, gate_model(gate_version("1"))) / GATE_FILE
        path.write_bytes(path.read_bytes()[:-1])

    async def main() -> None:
        async with serving(tmp_path, release("1", block=("mug",))) as (_, _, client):
            gate = await decided(client, "lamp")
            assert (gate.open, gate.reason, gate.probability) == (True, "no_model", None)
            assert (await decided(client, "mug")).reason == "blocked"

    with caplog.at_level(logging.ERROR):
        asyncio.run(main())
    assert "gate gifts-gate@1 goes by its rules alone" in caplog.text


def test_models_of_all_roles_are_read_once_and_forgotten_with_their_release(tmp_path: Path) -> None:
    for version in "123":
        write_gate(tmp_path, gate_model(gate_version(version)))
    live, canary, shadow = (release(version) for version in "123")

    async def main() -> None:
        models = GateModels(tmp_path)
        placement = replace(
            placement_of(live, "h:1"), traffic={"gifts": Traffic(canary=canary, shadow=shadow)}
        )
        first = await models.read(placement)
        assert set(first) == {gate_version(version) for version in "123"}
        again = await models.read(placement)
        assert all(again[model] is first[model] for model in first)
        assert set(await models.read(placement_of(canary, "h:1"))) == {gate_version("2")}

    asyncio.run(main())


def test_a_model_that_appears_later_is_read_with_the_next_placement(tmp_path: Path) -> None:
    async def main() -> None:
        models = GateModels(tmp_path)
        placement = placement_of(release("1"), "h:1")
        assert await models.read(placement) == {}
        write_gate(tmp_path, gate_model(gate_version("1")))
        assert set(await models.read(placement)) == {gate_version("1")}

    asyncio.run(main())


def test_without_a_folder_of_bundles_there_are_no_models() -> None:
    assert asyncio.run(GateModels(None).read(placement_of(release("1"), "h:1"))) == {}


def test_what_a_closed_gate_saves_and_loses_is_reported(tmp_path: Path) -> None:
    write_gate(tmp_path, gate_model(gate_version("1")))

    async def main() -> cluster_service_pb2.GateReport:
        async with serving(tmp_path, release("1", shadow_percent=100.0)) as (controller, shard, client):
            result = await client.search("gifts", "mug")
            assert [item.item_id for item in result.items] == ["a", "b"]
            assert not result.gate.open
            async with asyncio.timeout(10):
                report = await controller.gate_reports.get()
            asked = [str(call.model) for call in shard.calls]
            assert sorted(asked) == ["tower@1", "words@1", "words@1"]
            return report

    report = asyncio.run(main())
    assert (report.surface, report.release_version) == ("gifts", "1")
    assert (report.searches, report.failures, report.changed_pages) == (1, 0, 1)
    assert report.other_items_sum == pytest.approx(1 / 3), "c would have been there beside a and b"


def test_an_open_gate_is_not_shadowed(tmp_path: Path) -> None:
    write_gate(tmp_path, gate_model(gate_version("1")))

    async def main() -> None:
        async with serving(tmp_path, release("1", shadow_percent=100.0)) as (controller, shard, client):
            assert (await client.search("gifts", "a big red mug")).gate.open
            closed = await client.search("gifts", "mug")
            assert not closed.gate.open
            async with asyncio.timeout(10):
                report = await controller.gate_reports.get()
            assert report.searches == 1
            assert len(shard.calls) == 5, "two for the open one, one for the closed, two for its shadow"

    asyncio.run(main())
