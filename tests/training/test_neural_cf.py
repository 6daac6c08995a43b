"""Neural collaborative filtering: rows, gradients, learning, and a table that a shard answers from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shards.bundle import open_bundle
from shards.lookup_table import LookupTable
from shards.release import ModelVersion
from shards.search_context import SearchContext
from shards.servable import open_servable
from tests.training.model_batches import assert_every_parameter_learns
from tests.training.shard_answers import asked
from training.channels import Destination
from training.datasets import movielens
from training.datasets.leave_one_out import leave_one_out
from training.evaluation.sampled_ranking import figures_among, sampled
from training.models.neural_cf import NeuralCF, NeuralCFConfig, Rows
from training.neural_cf import NeuralCFTraining, together
from training.pipeline import train
from training.recipes import RECIPES
from training.run import Run
from training.sparse_rows import sparse_rows
from training.trainer import FitConfig


def rows() -> Rows:
    """Return {0, 2} and {1}."""
    return Rows(
        starts_R=torch.tensor([0, 2]), item_E=torch.tensor([0, 2, 1]), value_E=torch.tensor([1.0, 1.0, 2.0])
    )


def model() -> NeuralCF:
    torch.manual_seed(0)
    return NeuralCF(NeuralCFConfig(hidden=8, width=4, dropout=0.0), items=3)


def test_scores_of_some_items_are_those_of_all() -> None:
    cf = model()
    user_RD, item_RD = cf.user_tower(rows()), cf.item_tower(rows())
    assert user_RD.shape == (2, 4)
    every_RN = cf.score_all(user_RD, item_RD)
    torch.testing.assert_close(cf(user_RD, item_RD.expand(2, 2, 4)), every_RN)


def test_every_parameter_gets_a_gradient() -> None:
    cf = model()
    cf(cf.user_tower(rows()), cf.item_tower(rows()).expand(2, 2, 4)).square().sum().backward()
    assert_every_parameter_learns(cf)


def test_an_items_row_holds_what_most_of_its_users_like_too() -> None:
    like_UN = sparse_rows(
        np.array([0, 0, 0, 1, 1, 2]), np.array([0, 1, 2, 0, 1, 2]), np.ones(6), rows=3, width=4
    )
    found = together(like_UN, 1)
    assert [found.row(item)[0].tolist() for item in range(4)] == [[1], [0], [0], []]
    assert found.row(0)[1].tolist() == pytest.approx([np.log(3)])


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="negatives and neighbours"):
        NeuralCFTraining(negatives=0)
    with pytest.raises(ValueError, match="dropout a share"):
        NeuralCFConfig(dropout=1.0)


@pytest.mark.data
def test_real_likes_are_learned_and_looked_up_on_a_shard(tmp_path: Path) -> None:
    dataset = leave_one_out(movielens.load(tmp_path / "cache"), "like", name="likes")
    recipe = RECIPES["neural_cf"]
    channel = recipe.channels[0]
    fit = FitConfig(epochs=1, batch_size=1024, learning_rate=5e-3, weight_decay=1e-2)
    quick = replace(channel, neural_cf=NeuralCFTraining(fit=fit, neighbours=30), top=1_000)
    recipe = replace(recipe, channels=(quick, recipe.channels[1]))
    destination = Destination(root=tmp_path / "models", prefix="films", version="1")
    release = train(Run(recipe=recipe, dataset=dataset, seed=0, gate=lambda *_: True), destination).release
    neural, popular = (opened(tmp_path / "models", c.model) for c in release.channels)
    users = sampled(dataset, "test", limit=300)
    assert figures_among(neural, users).ndcg_10 > 1.15 * figures_among(popular, users).ndcg_10
    contexts = [user.judged.context for user in users[:3]]
    stranger = SearchContext(now_ms=contexts[0].now_ms)
    answers = asked(tmp_path / "models", tmp_path / "state", release.channels[0].model, [*contexts, stranger])
    for context, found in zip(contexts, answers, strict=False):
        assert len(found) == 20
        assert not set(found) & set(context.user.history.item_ids), "what was met is not recommended"
    assert answers[-1] == ()


def opened(root: Path, model: ModelVersion) -> LookupTable:
    engine = open_servable(open_bundle(root / model.model / model.version), "cpu")
    assert isinstance(engine, LookupTable)
    return engine
