"""eBay's personalised retrieval: trained on real ratings, its list spread over clusters by a shard."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from services import codec
from services.shard_config import ShardConfig
from services.shard_server import ShardServer
from shards.bundle import open_bundle
from shards.exclusion import exclusion
from shards.item_clusters import ClusteredIndex
from shards.two_tower import open_two_tower
from tests.services.shard_client import connect
from tests.training.movielens_slice import real_slice
from training.channel_recipe import ChannelRecipe
from training.channels import Destination
from training.evaluation.next_items import next_items
from training.item_clusters import cluster
from training.overrides import with_overrides
from training.pipeline import train
from training.recipes import RECIPES
from training.run import Run

K, M = 12, 4


def test_clusters_are_of_what_lies_together() -> None:
    axis_ND = np.repeat(np.eye(5, 8, dtype=np.float32), 20, axis=0)
    noisy_ND = axis_ND + 0.1 * np.random.default_rng(0).standard_normal(axis_ND.shape).astype(np.float32)
    made = cluster(noisy_ND, 5)
    assert np.bincount(made.cluster_N).tolist() == [20] * 5
    assert len({tuple(part) for part in made.cluster_N.reshape(5, 20).tolist()}) == 5
    np.testing.assert_array_equal(cluster(noisy_ND, 5).cluster_N, made.cluster_N)
    assert len(cluster(noisy_ND[:3], 5).centroid_CD) == 3


def test_more_clusters_than_there_are_cannot_be_asked() -> None:
    with pytest.raises(ValueError, match="nearest_clusters must be 1 to 3"):
        ChannelRecipe(name="spread", source="two_tower", clusters=3, nearest_clusters=4)


def test_a_shard_spreads_what_it_finds_and_leaves_out_what_was_seen(tmp_path: Path) -> None:
    dataset = real_slice(300)
    changes = ("two_tower.fit.epochs=1", "two_tower_queries=3000")
    recipe = with_overrides(RECIPES["ebay"], changes)
    assert recipe.channels[0].nearest_clusters == M
    destination = Destination(root=tmp_path / "models", prefix="films", version="1")
    trained = train(Run(recipe=recipe, dataset=dataset, seed=0, gate=lambda *_: True), destination)
    model = trained.release.channels[0].model
    path = destination.root / model.model / model.version
    searches = [user.context for user in next_items(dataset, "test", history_limit=100)[:10]]

    async def answers() -> list[tuple[str, ...]]:
        config = ShardConfig(shard_id="shard-1", state_dir=tmp_path / "state")
        async with ShardServer(config) as server, connect(server.address) as client:
            await client.load(model, path)
            calls = [
                codec.Retrieval(model=model, context=each, k=K, filter=exclusion(trained.release, each))
                for each in searches
            ]
            return [(await client.retrieve(call)).candidates.item_ids for call in calls]

    engine = open_two_tower(open_bundle(path), "cpu")
    assert isinstance(engine.ann, ClusteredIndex)
    plain = replace(engine, ann=engine.ann.index)
    spread: list[int] = []
    narrow: list[int] = []
    for context, item_ids in zip(searches, asyncio.run(answers()), strict=True):
        assert len(item_ids) == K
        assert not set(item_ids) & set(context.user.history.item_ids)
        alone = plain.retrieve(context, K, exclusion(trained.release, context), (), 0)
        for found, ids in ((spread, item_ids), (narrow, alone.item_ids)):
            found.append(len(np.unique(engine.ann.clusters.cluster_N[engine.items.rows_of(ids)])))
    assert min(spread) >= M
    assert np.mean(spread) > np.mean(narrow)
