"""Two views of an item, and the loss that tells them from those of others."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from shards.golden import GOLDEN_FILE, read_golden
from tests.training.model_batches import ITEMS, item_batch, model_inputs, request_batch
from tests.training.retail_slice import first_items
from tests.training.shard_answers import asked
from training.augmentations import MASKS, SelfSupervised, contrastive_loss, mutual_information, views
from training.channels import Destination
from training.models.fields import table_weight
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.overrides import with_overrides
from training.pipeline import train
from training.recipes import RECIPES
from training.retrieval import RetrievalLoss, RetrievalSet
from training.run import Run
from training.trainer import Seeded
from training.two_tower_training import TwoTowerTraining

ITEM = {
    "a": torch.arange(1, 33),
    "b": (torch.arange(32) // 2) + 1,
    "c": torch.arange(32) % 3 + 1,
    "words": torch.ones(32, 6, dtype=torch.int64),
}


def two_views(mask: str, dropout: float = 0.0) -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    related_FF = mutual_information(ITEM)
    return list(views(ITEM, mask=mask, dropout=dropout, related_FF=related_FF, generator=generator))


def kept(view: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in view.items() if bool((value != 0).any())}


def test_complementary_views_share_no_feature_and_miss_none() -> None:
    for mask in ("complementary", "information"):
        one, other = map(kept, two_views(mask))
        assert one | other == set(ITEM)
        assert not one & other


def test_random_views_hide_half_and_dropout_hides_values_alone() -> None:
    assert [len(kept(view)) for view in two_views("random")] == [2, 2]
    one, other = two_views("dropout", 0.5)
    assert kept(one) == kept(other) == set(ITEM)
    assert 0.3 < one["words"].float().mean() < 0.7
    assert not torch.equal(one["words"], other["words"])
    assert torch.equal(one["a"], ITEM["a"]), "an id alone is hidden whole or not at all"


def test_mutual_information_by_hand() -> None:
    x = torch.tensor([1, 1, 2, 2])
    related = mutual_information({"x": x, "same": x + 2, "other": torch.tensor([1, 2, 1, 2])})
    # By name: other, same, x.
    assert related[1, 2].item() == pytest.approx(math.log(2))
    assert related[0, 2].item() == pytest.approx(0.0, abs=1e-9)


def test_contrastive_loss_by_hand() -> None:
    one = torch.eye(2)
    assert contrastive_loss(one, one, 0.5).item() == pytest.approx(math.log(1 + math.exp(-2.0)))


@pytest.mark.parametrize("mask", MASKS)
def test_views_teach_without_anything_taken(mask: str) -> None:
    generator = Seeded(seed=0).apply()
    model = TwoTower(TwoTowerConfig(width=16, hidden=24, dropout=0.0), model_inputs())
    training = TwoTowerTraining(
        negatives=4, self_supervised=SelfSupervised(weight=0.5, mask=mask, items=ITEMS)
    )
    row_Q = torch.zeros(2, dtype=torch.int64)
    examples = RetrievalSet(request=request_batch(2), row_Q=row_Q, owner_Q=row_Q)
    loss = RetrievalLoss(model, training, examples, item_batch(), generator)
    loss(torch.arange(2)).backward()  # type: ignore[no-untyped-call]
    gradient_ND = table_weight(model.tables, "items").grad
    assert gradient_ND is not None
    assert (gradient_ND[2:].abs().sum(dim=1) > 0).float().mean() > 0.5, "items that nobody took learn"


@pytest.mark.data
def test_a_model_of_views_answers_on_a_shard_as_its_goldens_say(tmp_path: Path) -> None:
    recipe = with_overrides(
        replace(RECIPES["retail_views"], two_tower_queries=1_500), ("two_tower.fit.epochs=1",)
    )
    destination = Destination(root=tmp_path / "models", prefix="shop", version="1")
    run = Run(recipe=recipe, dataset=first_items(400, 600), seed=0, gate=lambda *_: True)
    trained = train(run, destination)
    assert trained.figures["embedding recall@100"] > 0.1
    model = trained.release.channels[0].model
    golden = read_golden(tmp_path / "models" / model.model / model.version / GOLDEN_FILE)
    answers = asked(tmp_path / "models", tmp_path / "state", model, golden.contexts)
    for answer, item_ids in zip(answers, golden.item_ids, strict=True):
        assert answer[: len(item_ids)] == tuple(item_ids)


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="mask must be one of random"):
        SelfSupervised(mask="none")
    with pytest.raises(ValueError, match="dropout a share"):
        SelfSupervised(dropout=1.0)
