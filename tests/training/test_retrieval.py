"""Training the two-tower model on pairs."""

import pytest
import torch

from tests.training.model_batches import ITEMS, item_batch, model_inputs, request_batch
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.retrieval import LOSSES, RetrievalSet, TwoTowerTraining, recall_at, train_two_tower
from training.trainer import FitConfig, Seeded


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


def test_recall_counts_items_among_the_nearest() -> None:
    model = TwoTower(TwoTowerConfig(width=16, hidden=24), model_inputs()).eval()
    with torch.inference_mode():
        recalls = [recall_at(model, pairs(), item_batch(), k) for k in (1, 5, ITEMS)]
    assert recalls == sorted(recalls)
    assert recalls[-1] == 1.0


def test_an_unknown_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="loss must be one of softmax"):
        TwoTowerTraining(loss="triplet")
