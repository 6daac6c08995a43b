"""Training the two-tower model on pairs."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from tests.training.model_batches import ITEMS, item_batch, model_inputs, request_batch
from training.hard_negatives import HardNegatives
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.retrieval import RetrievalLoss, RetrievalSet, recall_at, train_two_tower
from training.trainer import FitConfig, Seeded
from training.two_tower_training import LOSSES, TwoTowerTraining


def pairs() -> RetrievalSet:
    return RetrievalSet(
        request=request_batch(12), row_Q=torch.arange(12) % ITEMS, owner_Q=torch.full((12,), -1)
    )


@pytest.mark.parametrize("log_q", [True, False])
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_learns_to_find_the_item_that_was_taken(loss: str, log_q: bool) -> None:
    generator = Seeded(seed=0).apply()
    model = TwoTower(TwoTowerConfig(width=16, hidden=24, dropout=0.0), model_inputs())
    training = TwoTowerTraining(
        loss=loss,
        log_q=log_q,
        negatives=8,
        fit=FitConfig(epochs=80, batch_size=6, learning_rate=0.01),
    )
    before = recall_at(model, pairs(), item_batch(), 1)
    train_two_tower(model, training, pairs(), item_batch(), generator)
    with torch.inference_mode():
        assert recall_at(model, pairs(), item_batch(), 1) > max(0.9, before)


@pytest.mark.parametrize(
    "changes",
    [
        {"counted": "random", "loss": "pointwise", "in_batch": False},
        {"counted": "hardest", "per_positive": 2, "loss": "hinge", "margin": 2.0},
        {"streaming": True},
        {"rare_power": 0.5},
        {"hard": HardNegatives(per_positive=2, first_rank=2, last_rank=8, kept=4)},
        {"hard": HardNegatives(per_positive=2, first_rank=2, last_rank=8, until_epoch=9, alone=True)},
        {"hard": HardNegatives(per_positive=1, first_rank=2, last_rank=9), "counted": "random"},
    ],
)
def test_every_kind_of_negatives_teaches_to_find_the_item(changes: dict[str, Any]) -> None:
    generator = Seeded(seed=0).apply()
    model = TwoTower(TwoTowerConfig(width=16, hidden=24, dropout=0.0), model_inputs())
    fit = FitConfig(epochs=40, batch_size=6, learning_rate=0.02)
    train_two_tower(
        model, TwoTowerTraining(fit=fit, negatives=8, **changes), pairs(), item_batch(), generator
    )
    with torch.inference_mode():
        assert recall_at(model, pairs(), item_batch(), 1) > 0.9


def test_half_easy_and_half_hard_are_what_counts() -> None:
    generator = Seeded(seed=0).apply()
    model = TwoTower(TwoTowerConfig(width=16, hidden=24, dropout=0.0), model_inputs())
    hard_QR = (torch.arange(12).unsqueeze(1) + torch.tensor([3, 5])) % ITEMS
    training = TwoTowerTraining(
        negatives=8,
        counted="random",
        per_positive=2,
        hard=HardNegatives(per_positive=2, source="actions", actions=("skip",), from_epoch=1, kept=2),
    )
    loss = RetrievalLoss(model, training, replace(pairs(), hard_QR=hard_QR), item_batch(), generator)
    batch_B = loss.batches()[0]
    hard_BH = hard_QR[batch_B]
    examples = pairs()
    sampled = loss.sampler.sample(examples.row_Q[batch_B], examples.owner_Q[batch_B], generator, hard_BH)
    masked_BM = loss._counted(torch.zeros(sampled.masked_BM.shape), sampled, alone=False)
    counted_BM = ~masked_BM
    assert (counted_BM & sampled.hard_BM).sum(dim=1).tolist() == [2] * len(batch_B)
    assert (counted_BM & ~sampled.hard_BM).sum(dim=1).tolist() == [2] * len(batch_B)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"counted": "luck"}, "counted must be one of all"),
        ({"margin": 0.0}, "margin"),
        ({"per_positive": 0}, "per_positive"),
        ({"in_batch": False, "negatives": 0}, "in_batch"),
        ({"rare_power": 2.0}, "rare_power"),
    ],
)
def test_trainings_that_cannot_be_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        TwoTowerTraining(**changes)


def test_recall_counts_items_among_the_nearest() -> None:
    model = TwoTower(TwoTowerConfig(width=16, hidden=24), model_inputs()).eval()
    with torch.inference_mode():
        recalls = [recall_at(model, pairs(), item_batch(), k) for k in (1, 5, ITEMS)]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1.0


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="loss must be one of softmax"):
        TwoTowerTraining(loss="triplet")
