"""Item vectors trained on pairs: company, negatives, gradients; on real data as far as answers of a shard."""

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch

from services import codec
from services.shard_config import ShardConfig
from services.shard_server import ShardServer
from shards.bundle import open_bundle
from shards.feature_kinds import ItemId
from shards.forward_index import ForwardIndex
from shards.interests import InterestParams
from shards.item_vectors import ItemVectors
from shards.servable import open_servable
from tests.services.shard_client import connect
from tests.training.model_batches import ITEMS, assert_every_parameter_learns, item_batch, model_inputs
from tests.training.retail_slice import first_items
from training.channel_recipe import ChannelRecipe
from training.channels import Destination
from training.datasets.tables import TIMESTAMP, Dataset
from training.evaluation.next_items import next_items
from training.item_pairs import (
    HOUR_MS,
    ItemPairLoss,
    ItemPairTraining,
    found_within,
    item_pairs,
    pairs_between,
)
from training.models.item_tower import ItemTower, ItemTowerConfig, as_codes
from training.pipeline import train
from training.recipes import RECIPES
from training.run import Run
from training.trainer import FitConfig


def shop_events(lines: list[tuple[str, int, int]]) -> pa.Table:
    """Return events of (user, item row, hours) lines."""
    users, rows, hours = zip(*lines, strict=True)
    return pa.table(
        {
            "user_id": pa.array(users),
            "item_id": pa.array([f"i{row}" for row in rows]),
            "timestamp": pa.array([hour * HOUR_MS for hour in hours], TIMESTAMP),
        }
    )


CATALOGUE = ForwardIndex(pa.table({"item_id": [f"i{row}" for row in range(ITEMS)]}))


def test_company_is_of_one_user_and_of_hours() -> None:
    events = shop_events([("u", 0, 0), ("v", 1, 1), ("u", 2, 5), ("u", 3, 12), ("u", 4, 40)])
    pairs = item_pairs(events, CATALOGUE, 8.0)
    assert pairs.row_E.tolist() == [0, 2, 3, 4, 1]
    assert pairs.anchors().tolist() == [0, 1, 2]
    generator = torch.Generator().manual_seed(0)
    drawn = {(a, int(pairs.positives(torch.tensor([a]), generator))) for a in (0, 1, 2) for _ in range(20)}
    assert drawn == {(0, 1), (1, 0), (1, 2), (2, 1)}
    row_M = torch.tensor([0, 1, 2, 3])
    company_BM = pairs.company(torch.tensor([0, 1]), row_M)
    assert company_BM.tolist() == [[True, False, True, False], [True, False, True, True]]
    about_BM = pairs.about(torch.tensor([2 * HOUR_MS]), torch.arange(4))
    assert about_BM.tolist() == [[False, False, False, False]], "each was met once, at another hour"
    assert pairs.about(torch.tensor([5 * HOUR_MS]), torch.arange(4)).tolist() == [[False, False, True, False]]


def crowd() -> pa.Table:
    """Return users who take items of one parity together, at all times."""
    lines = [(f"u{u}", 2 * (u * 7 % 10) + u % 2, u // 3) for u in range(60)]
    return shop_events(lines + [(u, (row + 2 * (h % 3) + 2) % ITEMS, h + 1) for u, row, h in lines])


@pytest.mark.parametrize(("output", "hardest"), [("unit", 0), ("tanh", 5)])
def test_the_loss_reaches_every_parameter_and_falls(output: str, hardest: int) -> None:
    torch.manual_seed(0)
    config = ItemTowerConfig(width=16, hidden=24, dropout=0.0, output=output, temperature=0.5)
    model = ItemTower(config, model_inputs())
    pairs = item_pairs(crowd(), CATALOGUE, 8.0)
    training = ItemPairTraining(negatives=40, hardest=hardest)
    loss = ItemPairLoss(model, training, pairs, item_batch(), torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    values = []
    for _ in range(40):
        optimizer.zero_grad()
        value = loss(pairs.anchors())
        value.backward()  # type: ignore[no-untyped-call]
        values.append(value.item())
        optimizer.step()
    assert_every_parameter_learns(model.tower.perceptron)
    assert np.mean(values[-10:]) < 0.95 * np.mean(values[:10])
    vector_ND = model(item_batch()).detach()
    assert vector_ND.abs().max() <= 1.0
    codes = as_codes(vector_ND)
    assert torch.equal(codes, codes.round())
    assert -128 <= codes.min() <= codes.max() <= 127


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ValueError, match="output must be unit or tanh"):
        ItemTowerConfig(output="relu")
    with pytest.raises(ValueError, match="within_hours must be above 0"):
        ItemPairTraining(within_hours=0)
    with pytest.raises(ValueError, match="go together"):
        replace(RECIPES["avito"], item_pairs=None)


@pytest.mark.data
def test_items_that_nobody_bought_yet_are_found_on_a_shard(tmp_path: Path) -> None:
    dataset = first_items(500, 500)
    hidden = pa.array(dataset.items.column("item_id").to_pylist()[::8])
    seen = replace(
        dataset, events=_without(dataset.events, hidden), queries=_without(dataset.queries, hidden)
    )
    recipe = RECIPES["avito"]
    assert recipe.item_pairs is not None
    assert not any(isinstance(feature, ItemId) for feature in recipe.features.two_tower)
    channels = (
        *recipe.channels,
        ChannelRecipe(name="interests", source="item_vectors", interests=InterestParams(cut=1.0)),
    )
    fit = FitConfig(epochs=1, batch_size=512, learning_rate=5e-3)
    recipe = replace(recipe, channels=channels, item_pairs=replace(recipe.item_pairs, negatives=500, fit=fit))
    destination = Destination(root=tmp_path / "models", prefix="retail", version="1")
    trained = train(Run(recipe=recipe, dataset=seen, seed=0, gate=lambda *_: True), destination)
    asked = next_items(seen, "test", history_limit=100)[:30]

    async def answers(channel: int) -> list[tuple[str, ...]]:
        model = trained.release.channels[channel].model
        config = ShardConfig(shard_id="shard-1", state_dir=tmp_path / f"state-{channel}")
        async with ShardServer(config) as server, connect(server.address) as client:
            await client.load(model, destination.root / model.model / model.version)
            calls = [codec.Retrieval(model=model, context=user.context, k=60) for user in asked]
            return [(await client.retrieve(call)).candidates.item_ids for call in calls]

    for channel in (0, 1):
        found = asyncio.run(answers(channel))
        assert all(len(item_ids) in (0, 60) for item_ids in found), "of 90 days ago nothing is left to ask"
        assert any(set(item_ids) & set(hidden.to_pylist()) for item_ids in found), "new items are retrieved"
    path = destination.root / trained.release.channels[0].model.model / "1"
    assert new_items_found(dataset, hidden, path, 60) > 1.3 * 60 / 500, "more often than by chance"


def new_items_found(dataset: Dataset, hidden: pa.Array, path: Path, k: int) -> float:
    """Return how often a hidden item is among the nearest to what the same user bought with it."""
    engine = open_servable(open_bundle(path), "cpu")
    assert isinstance(engine, ItemVectors)
    vector_ND = torch.from_numpy(engine.ann.vectors_at(np.arange(len(engine.items))))
    anchor, other = pairs_between(item_pairs(dataset.events, engine.items, 8.0), 0, 1 << 60)
    new_N = torch.from_numpy(np.isin(np.array(engine.items.item_ids), hidden.to_pylist()))
    kept = new_N[other] & ~new_N[anchor]
    return found_within(vector_ND, anchor[kept], other[kept], k)


def _without(table: pa.Table, item_ids: pa.Array) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table.column("item_id"), item_ids)))
