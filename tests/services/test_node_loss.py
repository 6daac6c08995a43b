"""Nodes of a Ray that die with the shards they run; the others take these up."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.shard_actor import start_shard_actor
from services.shard_config import ShardConfig
from services.shard_host import RayShardHost
from services.shard_resources import ShardResources
from shards.errors import Unavailable
from shards.replica import ReplicaState
from tests.services.ray_nodes import RayNodes, ray_nodes
from tests.services.running_controller import SHARDS, RunningController, eventually, running_controller
from tests.services.shard_client import Models, connect
from tests.shards.bundles import RELEASE, build_models

pytestmark = pytest.mark.cluster

_RETURN_S = 120.0


@pytest.fixture
def nodes() -> Iterator[RayNodes]:
    with ray_nodes() as nodes:
        yield nodes


def host_of(state_dir: Path) -> RayShardHost:
    return RayShardHost(
        lambda shard_id: ShardConfig(shard_id=shard_id, state_dir=state_dir, host="0.0.0.0"),
        ShardResources(num_cpus=1),
    )


async def address_of(host: RayShardHost, shard_id: str) -> str:
    found: list[str] = []

    async def serves() -> bool:
        try:
            found.append(await host.address(shard_id))
        except Unavailable:
            return False
        return True

    await eventually(serves, within_s=_RETURN_S)
    return found[-1]


def test_shards_are_spread_and_come_back_on_another_node_with_their_models(
    nodes: RayNodes, models: Models, tmp_path: Path
) -> None:
    nodes.add(3, cpus=1)
    held = dict.fromkeys(models.release.models(), ReplicaState.READY)

    async def main() -> None:
        host = host_of(tmp_path)
        for shard_id in SHARDS:
            await host.start(shard_id)
        addresses = [await address_of(host, shard_id) for shard_id in SHARDS]
        before = [nodes.node_of(shard_id) for shard_id in SHARDS]
        assert all(before)
        assert before[0] != before[1]
        # Callers on other hosts must find it: not at the address of every interface.
        assert all(not address.startswith("0.0.0.0:") for address in addresses)
        async with connect(addresses[0]) as client:
            for model in held:
                await client.load(model, models.path(model))
        await asyncio.to_thread(nodes.kill, before[0])

        async def returned() -> bool:
            # Workers notice a moment later than their node that it is gone.
            return nodes.node_of(SHARDS[0]) not in {"", *before}

        await eventually(returned, within_s=_RETURN_S)
        async with connect(await address_of(host, SHARDS[0])) as client:
            await client.wait_for(held, timeout_s=_RETURN_S)
            await client.retrieve(models.retrieval())
        assert nodes.node_of(SHARDS[1]) == before[1]

    asyncio.run(main())


def test_what_a_lost_node_held_is_loaded_again_where_disks_are_not_shared(
    nodes: RayNodes, tmp_path: Path
) -> None:
    nodes.add(3, cpus=1)
    build_models(tmp_path / "models")

    async def main() -> None:
        host = host_of(tmp_path / "state")
        async with running_controller(tmp_path, host) as controller:
            operation = await controller.deploy(RELEASE)
            assert operation.state == pb.OPERATION_STATE_SUCCEEDED, operation.detail
            before = nodes.node_of(SHARDS[0])
            # Its disk goes with the node.
            (tmp_path / "state" / "shards" / f"{SHARDS[0]}.json").unlink(missing_ok=True)
            await asyncio.to_thread(nodes.kill, before)
            await eventually(lambda: serves_elsewhere(controller, before), within_s=_RETURN_S)

    async def serves_elsewhere(controller: RunningController, before: str) -> bool:
        shard = controller.driver.state.shards[SHARDS[0]]
        ready = [r for r in shard.replicas.values() if r.state is ReplicaState.READY]
        complete = len(ready) == len(RELEASE.models()) and shard.silent_since_ms is None
        return complete and nodes.node_of(SHARDS[0]) not in {"", before}

    asyncio.run(main())


def test_a_shard_waits_while_no_node_has_room(nodes: RayNodes, tmp_path: Path) -> None:
    async def main() -> None:
        host = host_of(tmp_path)
        await host.start(SHARDS[0])
        with pytest.raises(Unavailable):
            await host.address(SHARDS[0])
        nodes.add(1, cpus=1)
        await address_of(host, SHARDS[0])
        # The second one waits; whoever starts it once more finds it waiting.
        start_shard_actor(ShardConfig(shard_id=SHARDS[1], state_dir=tmp_path))
        with pytest.raises(Unavailable):
            await host.address(SHARDS[1])
        await host.stop(SHARDS[0])
        await host.start(SHARDS[1])
        await address_of(host, SHARDS[1])

    asyncio.run(main())


def test_no_two_replicas_are_on_one_node_while_there_are_two(nodes: RayNodes, tmp_path: Path) -> None:
    nodes.add(2, cpus=2)
    build_models(tmp_path / "models")
    shard_ids = tuple(f"shard-{n}" for n in range(4))

    async def main() -> None:
        async with running_controller(tmp_path, host_of(tmp_path / "state"), shard_ids) as controller:

            async def all_seen() -> bool:
                return all(shard.silent_since_ms is None for shard in controller.driver.state.shards.values())

            await eventually(all_seen, within_s=_RETURN_S)
            operation = await controller.deploy(RELEASE)
            assert operation.state == pb.OPERATION_STATE_SUCCEEDED, operation.detail
            on = {shard_id: nodes.node_of(shard_id) for shard_id in shard_ids}
            assert len(set(on.values())) == 2
            for model, assignment in controller.driver.state.placement.assignments.items():
                assert len({on[shard_id] for shard_id in assignment.shard_ids}) == 2, model

    asyncio.run(main())
