"""DPSR: a query tower with two heads, from real searches to answers of a real shard."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from services import codec
from services.shard_config import ShardConfig
from services.shard_server import ShardServer
from shards.search_context import SearchContext
from tests.bench.quality_query_heads import small
from tests.services.shard_client import connect
from tests.training.model_batches import (
    ITEMS,
    assert_every_parameter_learns,
    item_batch,
    model_inputs,
    request_batch,
)
from tests.training.retail_slice import two_meanings
from training.channels import Destination
from training.losses import hinge_loss
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.pipeline import train
from training.recipes import RECIPES
from training.run import Run
from training.trainer import FitConfig


def two_heads() -> TwoTower:
    torch.manual_seed(0)
    return TwoTower(TwoTowerConfig(width=16, hidden=24, dropout=0.0, heads=2), model_inputs())


def test_heads_are_unit_vectors_and_every_parameter_learns() -> None:
    model = two_heads()
    vector_BHD = model.encode_query(request_batch(6))
    assert vector_BHD.shape == (6, 2, 16)
    torch.testing.assert_close(vector_BHD.norm(dim=-1), torch.ones(6, 2))
    logit_BN = model(request_batch(6), item_batch())
    assert logit_BN.shape == (6, ITEMS)
    hinge_loss(logit_BN[:, 0], logit_BN[:, 1:], torch.zeros(6, ITEMS - 1, dtype=torch.bool)).backward()  # type: ignore[no-untyped-call]
    assert_every_parameter_learns(model)


def test_attention_weighs_heads_by_how_well_they_suit() -> None:
    model = two_heads().eval()
    z_BHN = model.encode_query(request_batch(3)) @ model.encode_item(item_batch()).T
    weight_BHN = (z_BHN / 0.1).exp() / (z_BHN / 0.1).exp().sum(dim=1, keepdim=True)
    expected = (weight_BHN * z_BHN).sum(dim=1) / model.config.temperature
    torch.testing.assert_close(model(request_batch(3), item_batch()), expected)


@pytest.mark.data
def test_both_senses_of_a_query_are_found_on_a_shard(tmp_path: Path) -> None:
    dataset, senses = two_meanings(5)
    recipe = small(RECIPES["dpsr"], 2)
    fit = FitConfig(epochs=6, batch_size=64, learning_rate=1e-2)
    recipe = replace(
        recipe, two_tower=replace(recipe.two_tower, fit=fit, negatives=128), two_tower_queries=1500
    )
    destination = Destination(root=tmp_path / "models", prefix="retail", version="1")
    trained = train(Run(recipe=recipe, dataset=dataset, seed=0, gate=lambda *_: True), destination)
    model = trained.release.channels[0].model

    async def answers() -> list[tuple[str, ...]]:
        config = ShardConfig(shard_id="shard-1", state_dir=tmp_path / "state")
        async with ShardServer(config) as server, connect(server.address) as client:
            await client.load(model, destination.root / model.model / model.version)
            contexts = [SearchContext(query=sense.word, now_ms=0) for sense in senses]
            calls = [codec.Retrieval(model=model, context=context, k=20) for context in contexts]
            return [(await client.retrieve(call)).candidates.item_ids for call in calls]

    for sense, item_ids in zip(senses, asyncio.run(answers()), strict=True):
        assert all(set(item_ids) & items for items in sense.items), sense.word
