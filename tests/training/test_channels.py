"""Every channel without training: its bundle loads on a real shard, and answers there as it did here."""

import asyncio
from pathlib import Path

import pyarrow as pa
import pytest

from services import codec
from services.shard_config import ShardConfig
from services.shard_server import ShardServer
from shards.bundle import open_bundle
from shards.geo import GeoParams
from shards.golden import GOLDEN_FILE, read_golden
from shards.search_context import SearchContext
from tests.services.shard_client import connect
from tests.training.shop_dataset import shop_dataset
from training.channel_contents import contents_of
from training.channel_recipe import ChannelRecipe
from training.channels import Destination, write_channel
from training.datasets.tables import Dataset, timestamps_ms
from training.snapshot import browsing_at, requests_between, snapshot

CHANNELS = (
    ChannelRecipe(name="lexical", source="lexical"),
    ChannelRecipe(name="query_memory", source="query_memory"),
    ChannelRecipe(name="token_memory", source="token_memory"),
    ChannelRecipe(name="title_popularity", source="title_popularity"),
    ChannelRecipe(name="item_cf", source="item_cf", interest_half_life_days=30.0),
    ChannelRecipe(name="discovered", source="item_cf", discovery=True, fresh_half_life_days=7.0),
    ChannelRecipe(name="swing", source="swing", user_weights=True, window_days=45.0),
    ChannelRecipe(name="user_cf", source="user_cf", like_half_life_days=90.0, discovery=True),
    ChannelRecipe(name="geo", source="geo", geo=GeoParams(radius_km=500.0, order_by="popularity")),
    ChannelRecipe(name="author", source="author", column="maker", followed="follows"),
    ChannelRecipe(name="cached", source="cached", actions=("purchase",)),
    ChannelRecipe(name="own", source="own"),
    ChannelRecipe(name="popular", source="popular"),
    ChannelRecipe(name="trending", source="trending", half_life_days=3.0, discovery=True),
    ChannelRecipe(name="new", source="new", within_days=90.0),
)


def shop() -> Dataset:
    """Return the shop with a maker and a place for each item."""
    made = shop_dataset()
    size = len(made.items)
    items = (
        made.items.append_column("maker", pa.array([f"maker {row % 7}" for row in range(size)]))
        .append_column("latitude_deg", pa.array([50.0 + row / 20 for row in range(size)]))
        .append_column("longitude_deg", pa.array([row / 30 for row in range(size)]))
    )
    return Dataset(**{**made.tables(), "items": items}, name=made.name, queries_are_proxies=True)


def contexts(dataset: Dataset, now_ms: int) -> list[SearchContext]:
    """Return searches with words and visits without them, of users with a history."""
    searches = requests_between(dataset, 0, now_ms, newest=3, history_limit=50).contexts
    return [*searches, *browsing_at(dataset, now_ms, newest=3, history_limit=50).contexts]


@pytest.mark.parametrize("channel", CHANNELS, ids=lambda channel: channel.name)
def test_a_channel_loads_on_a_shard_and_answers_as_in_training(
    channel: ChannelRecipe, tmp_path: Path
) -> None:
    dataset = shop()
    now_ms = int(timestamps_ms(dataset.events).max()) + 1
    destination = Destination(root=tmp_path / "models", prefix="shop", version="1")
    asked = contexts(dataset, now_ms)
    known, model = snapshot(dataset, now_ms), destination.model(channel.name)
    write_channel(model, contents_of(channel, known), known, asked, destination.root)
    path = tmp_path / "models" / model.model / model.version
    golden = read_golden(open_bundle(path, expect=model).file(GOLDEN_FILE))
    assert any(golden.item_ids), "a golden without an item tells nothing"

    async def answers() -> list[tuple[str, ...]]:
        config = ShardConfig(shard_id="shard-1", state_dir=tmp_path / "state")
        async with ShardServer(config) as server, connect(server.address) as client:
            await client.load(model, path)
            calls = [codec.Retrieval(model=model, context=context, k=20) for context in asked]
            return [(await client.retrieve(call)).candidates.item_ids for call in calls]

    assert asyncio.run(answers()) == list(golden.item_ids)
