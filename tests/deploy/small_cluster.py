"""A workspace with a model of every engine and data for them; one shard and one router that serve it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pyarrow as pa

from deploy.release_files import write_release
from deploy.user_loading import load_users
from deploy.workspace import Workspace
from protos.headrace.v1 import shard_service_pb2
from protos.headrace.v1.shard_service_pb2_grpc import ShardServiceStub
from services.chassis import channel_options
from services.codec import model_version_to_proto
from services.shard_config import ShardConfig
from services.shard_server import ShardServer
from shards.release import GateRules, Release
from tests.router.running_router import placed, running
from tests.shards import bundles
from training.datasets import parquet
from training.datasets.tables import TIMESTAMP, Dataset, sort_tables

if TYPE_CHECKING:  # The stub of an aio channel exists for the type checker only.
    from protos.headrace.v1.shard_service_pb2_grpc import ShardServiceAsyncStub

RELEASE = replace(bundles.RELEASE, gate=GateRules(item_id_pattern=r"item-\d+"))
"""Every engine; the gate keeps the two-tower channel closed for item ids."""

USERS = 12
EVENTS = 150
QUERIES = 60


def shop() -> Dataset:
    """Return a dataset over the items of the bundles.

    Two users are new; half of the queries want something the user took at some time, and one kind in four
    each is a title, a word, an item id and no query at all.
    """
    rng = np.random.default_rng(7)
    item_ids = bundles.ITEMS.column("item_id").to_pylist()
    titles = [title.lower() for title in bundles.ITEMS.column("title").to_pylist()]
    users = [f"u{i}" for i in range(USERS)]
    taken = rng.integers(len(item_ids), size=EVENTS)
    takers = rng.integers(USERS - 2, size=EVENTS)
    again = rng.integers(2, size=QUERIES) == 0
    wanted = np.where(again, taken[:QUERIES], rng.integers(len(item_ids), size=QUERIES))
    askers = np.where(again, takers[:QUERIES], rng.integers(USERS, size=QUERIES))
    queries = [
        (titles[row], titles[row].split()[-1], item_ids[row], "")[i % 4] for i, row in enumerate(wanted)
    ]
    queries[0], wanted[0] = "red mug", 0
    events = {
        "event_id": [f"e{i:03d}" for i in range(EVENTS)],
        "user_id": [users[i] for i in takers],
        "item_id": [item_ids[row] for row in taken],
        "action": ["purchase"] * EVENTS,
        "timestamp": _times(rng, EVENTS),
    }
    asked = {
        "query_id": [f"q{i:03d}" for i in range(QUERIES)],
        "timestamp": _times(rng, QUERIES),
        "user_id": [users[i] for i in askers],
        "query": queries,
        "item_id": [item_ids[row] for row in wanted],
        "split": ["test"] * QUERIES,
    }
    dataset = Dataset(
        name="shop",
        items=bundles.ITEMS,
        users=pa.table({"user_id": users}),
        events=pa.table(events),
        queries=pa.table(asked),
        queries_are_proxies=True,
    )
    return sort_tables(dataset)


def _times(rng: np.random.Generator, count: int) -> pa.Array:
    """Return moments of the month before, many of them the same."""
    days = rng.integers(1, 31, size=count)
    return pa.array(bundles.NOW_MS - days * bundles.DAY_MS, TIMESTAMP)


def write_workspace(root: Path) -> None:
    """Write models, release, users, and the dataset in the folder `data`."""
    bundles.build_models(root / "models")
    write_release(Workspace(root), RELEASE)
    load_users(shop(), root / "users.lmdb")
    parquet.save(shop(), root / "data")


@asynccontextmanager
async def serving(root: Path, release: Release = RELEASE) -> AsyncIterator[str]:
    """Serve the workspace's models and users; gives the router's address."""
    config = ShardConfig(shard_id="shard-0", state_dir=root / "state")
    async with ShardServer(config) as shard, shard_stub(shard.address) as stub:
        for model in release.models():
            request = shard_service_pb2.LoadModelRequest(
                model=model_version_to_proto(model), path=str(root / "models" / model.model / model.version)
            )
            await stub.LoadModel(request, timeout=120)
        holders = {str(model): ["shard-0"] for model in release.models()}
        placement = placed([release], holders, {"shard-0": shard.address})
        async with running(placement, root / "state", users=root / "users.lmdb") as router:
            yield router.address


@asynccontextmanager
async def shard_stub(address: str) -> AsyncIterator["ShardServiceAsyncStub"]:
    """Give a line to a shard."""
    async with grpc.aio.insecure_channel(address, options=channel_options()) as channel:
        yield ShardServiceStub(channel)
