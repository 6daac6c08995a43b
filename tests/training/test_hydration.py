"""Hydrated vectors: quantiles, weights for recall, and a bundle that ranks by both parts."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shards.bundle import open_bundle
from shards.release import ModelVersion
from shards.servable import open_servable
from shards.two_tower import TwoTower
from tests.training.shard_answers import asked
from tests.training.shop_dataset import shop_dataset
from tests.training.shop_recipe import FIT, TEXT
from training.channel_recipe import ChannelRecipe
from training.channels import Destination
from training.evaluation.judgements import judged_queries
from training.hydration import best_weights, quantiles
from training.models.hydrated import Hydrated, Hydration
from training.models.prod2vec import Prod2Vec
from training.pipeline import train
from training.recipe import FeatureRecipe, Recipe
from training.recipes import RECIPES
from training.run import Run
from training.two_tower_training import TwoTowerTraining

RECIPE = Recipe(
    name="shop_hydrated",
    surface="shop-hydrated",
    channels=(ChannelRecipe(name="embedding", source="two_tower"),),
    features=FeatureRecipe(two_tower=TEXT, vocab_size=100),
    two_tower=TwoTowerTraining(fit=replace(FIT, epochs=1), negatives=16),
    hydration=Hydration(columns=("popularity", "idle_days"), k=1, trials=40),
    ranking_days=30,
)


def test_numbers_are_the_share_of_items_with_less() -> None:
    columns: dict[str, list[object]] = {"sales": [3.0, None, 1.0, 3.0, 7.0], "age": [1, 2, 3, 4, 5]}
    found = quantiles(columns, ("sales", "age"))
    torch.testing.assert_close(
        found, torch.tensor([[0.25, 0.0], [0.0, 0.2], [0.0, 0.4], [0.25, 0.6], [0.75, 0.8]])
    )


def test_products_of_hydrated_vectors_are_both_parts_together() -> None:
    towers, weight_F = Prod2Vec(torch.eye(3), history="history", item="row"), torch.tensor([0.5, -0.25])
    number_NF = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
    model = Hydrated(towers, number_NF, weight_F)
    query_BD, item_ND = (
        model.encode_query({"history": torch.tensor([[2]])}),
        model.encode_item({"row": torch.arange(1, 4)}),
    )
    torch.testing.assert_close(query_BD @ item_ND.T, torch.tensor([[-0.25, 1.5, 0.25]]))


def test_weights_go_to_the_number_that_tells_what_is_taken() -> None:
    generator = torch.Generator().manual_seed(0)
    vector_ND = torch.nn.functional.normalize(torch.randn(50, 8, generator=generator), dim=1)
    vector_QD = torch.nn.functional.normalize(torch.randn(200, 8, generator=generator), dim=1)
    number_NF = torch.rand(50, 2, generator=generator)
    row_Q = (vector_QD @ vector_ND.T + 0.25 * number_NF[:, 0]).argmax(dim=1)
    found = best_weights(
        Hydration(columns=("told", "noise"), k=1, trials=40), vector_QD, row_Q, vector_ND, number_NF, seed=0
    )
    assert found[0] > 0.15
    assert abs(found[1]) < 0.1


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="hydration needs columns"):
        Hydration(columns=())
    with pytest.raises(ValueError, match="hydration is for a two_tower channel"):
        replace(RECIPE, channels=(ChannelRecipe(name="popular", source="popular"),))
    with pytest.raises(ValueError, match="go with a plain two-tower model"):
        replace(RECIPES["deep_retrieval"], hydration=Hydration())


def test_a_recipe_hydrates_what_a_shard_finds(tmp_path: Path) -> None:
    dataset = shop_dataset()
    releases = {
        name: train(
            Run(recipe=recipe, dataset=dataset, seed=0, gate=lambda *_: True),
            Destination(root=tmp_path / name, prefix="shop", version="1"),
        ).release
        for name, recipe in (("hydrated", RECIPE), ("plain", replace(RECIPE, hydration=None)))
    }
    engines = {name: opened(tmp_path / name, release.channels[0].model) for name, release in releases.items()}
    widths = {name: engine.ann.width for name, engine in engines.items()}
    assert widths["hydrated"] == widths["plain"] + 2
    contexts = [query.context for query in judged_queries(dataset, "test", limit=20, history_limit=10)]
    found = [
        {name: engine.retrieve(context, 48, (), (), 0) for name, engine in engines.items()}
        for context in contexts
    ]
    moved = [
        not np.array_equal(both["hydrated"].columns["score"], both["plain"].columns["score"])
        for both in found
    ]
    assert any(moved), "weights that were fitted are not all zero"
    model = releases["hydrated"].channels[0].model
    pages = asked(tmp_path / "hydrated", tmp_path / "state", model, contexts, k=48)
    assert pages == [both["hydrated"].item_ids for both in found]


def opened(root: Path, model: ModelVersion) -> TwoTower:
    engine = open_servable(open_bundle(root / model.model / model.version), "cpu")
    assert isinstance(engine, TwoTower)
    return engine
