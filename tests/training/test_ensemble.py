"""Ensembles of two-tower models: the identity of the concatenation, and one bundle that a shard serves."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shards.bundle import open_bundle
from shards.golden import GOLDEN_FILE, read_golden
from shards.servable import open_servable
from shards.two_tower import TwoTower as TwoTowerEngine
from tests.training.model_batches import item_batch, model_inputs, request_batch
from tests.training.movielens_slice import real_slice
from tests.training.shard_answers import asked
from training.channels import Destination
from training.ensembles import EnsembleTraining, Member
from training.evaluation.judgements import judged_queries
from training.models.ensemble import Ensemble
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.pipeline import train
from training.recipes import RECIPES
from training.run import Run
from training.two_tower_training import TwoTowerTraining

WEIGHTS = (1.0, 0.5, 3.0)


def towers() -> list[TwoTower]:
    return [TwoTower(TwoTowerConfig(width=width, hidden=24), model_inputs()).eval() for width in (8, 16, 12)]


def test_the_cosine_of_the_concatenation_is_the_weighted_sum_of_cosines() -> None:
    members, request, item = towers(), request_batch(9), item_batch()
    ensemble = Ensemble(members, WEIGHTS).eval()
    with torch.inference_mode():
        found = ensemble.encode_query(request) @ ensemble.encode_item(item).T
        cosines = [member.encode_query(request) @ member.encode_item(item).T for member in members]
    weighted = sum(weight * cosine for weight, cosine in zip(WEIGHTS, cosines, strict=True))
    scale = sum(weight**2 for weight in WEIGHTS) ** 0.5 * len(WEIGHTS) ** 0.5
    torch.testing.assert_close(found, weighted / scale, atol=1e-6, rtol=0)
    with torch.inference_mode():
        lengths = ensemble.encode_query(request).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones(9), atol=1e-6, rtol=0)


@pytest.mark.parametrize("first", [0, 60])
def test_one_bundle_serves_the_ensemble_on_a_shard(tmp_path: Path, first: int) -> None:
    recipe = RECIPES["movielens_ensemble"]
    assert recipe.ensemble is not None
    members = tuple(
        replace(member, training=replace(member.training, fit=replace(member.training.fit, epochs=2)))
        for member in recipe.ensemble.members
    )
    recipe = replace(
        recipe,
        two_tower_queries=2_500,
        ensemble=EnsembleTraining(members=members, first=first),
        # Of the cascade, the items that few act on any more are left out, and histories still know them.
        channels=(replace(recipe.channels[0], radius=0.2, active_within_days=60.0 if first else None),),
    )
    destination = Destination(root=tmp_path / "models", prefix="films", version="1")
    run = Run(recipe=recipe, dataset=real_slice(400), seed=0, gate=lambda *_: True)
    trained = train(run, destination)
    assert trained.figures["embedding recall@100"] > 0.3
    model = trained.release.channels[0].model
    bundle = open_bundle(tmp_path / "models" / model.model / model.version)
    engine = open_servable(bundle, "cpu")
    assert isinstance(engine, TwoTowerEngine)
    contexts = [each.context for each in judged_queries(run.dataset, "test", limit=20, history_limit=40)]
    requests = engine.encoder.encode_requests(contexts)
    for name in ("region", "user_cluster"):
        assert len(set(requests[name].tolist())) > 1, f"{name} tells searchers apart"
    golden = read_golden(tmp_path / "models" / model.model / model.version / GOLDEN_FILE)
    answers = asked(tmp_path / "models", tmp_path / "state", model, golden.contexts)
    for answer, item_ids in zip(answers, golden.item_ids, strict=True):
        assert answer[: len(item_ids)] == tuple(item_ids)


def test_ensembles_that_cannot_be_are_refused() -> None:
    member = Member(training=TwoTowerTraining())
    with pytest.raises(ValueError, match="two at least"):
        EnsembleTraining(members=(member,))
    with pytest.raises(ValueError, match="a cascade has two members"):
        EnsembleTraining(members=(member, member, member), first=10)
    with pytest.raises(ValueError, match="weight"):
        Member(training=TwoTowerTraining(), weight=0.0)
