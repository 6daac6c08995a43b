"""Searches that fail train more often."""

from dataclasses import replace

import pytest
import torch

from tests.training.model_batches import ITEMS, item_batch, model_inputs, request_batch
from training.hard_positives import FailedSearches, HardPositives
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.retrieval import RetrievalLoss, RetrievalSet, item_ranks, recall_at, train_two_tower
from training.trainer import FitConfig, Seeded
from training.two_tower_training import TwoTowerTraining

HARD = HardPositives(times=5.0, beyond_rank=4)


def pairs() -> RetrievalSet:
    return RetrievalSet(
        request=request_batch(12), row_Q=torch.arange(12) % ITEMS, owner_Q=torch.full((12,), -1)
    )


def test_those_whose_item_ranks_low_weigh_more_from_their_epoch_on() -> None:
    failed = FailedSearches(HARD, 3)
    ranks_Q = torch.tensor([3, 4, 9])
    failed.start_epoch(lambda: ranks_Q)
    assert failed.weight_Q.tolist() == [1.0, 1.0, 1.0]
    failed.start_epoch(lambda: ranks_Q)
    assert failed.weight_Q.tolist() == [1.0, 5.0, 5.0]
    again = FailedSearches(HARD, 3)
    again.load_state_dict(failed.state_dict())
    assert again.weight_Q.tolist() == [1.0, 5.0, 5.0]


def test_an_epoch_draws_failed_searches_as_often_as_they_weigh_and_log_q_knows() -> None:
    generator = Seeded(seed=0).apply()
    model = TwoTower(TwoTowerConfig(width=16, hidden=24, dropout=0.0), model_inputs())
    config = replace(HARD, from_epoch=1)
    training = TwoTowerTraining(hard_positives=config, negatives=4, fit=FitConfig(batch_size=6))
    loss = RetrievalLoss(model, training, pairs(), item_batch(), generator)
    drawn = torch.cat([torch.cat(loss.batches()) for _ in range(100)])
    failed_Q = item_ranks(model.eval(), pairs(), item_batch()) >= 4
    assert 0 < failed_Q.sum() < 12
    share = failed_Q[drawn].double().mean().item()
    expected = 5 * int(failed_Q.sum()) / (5 * int(failed_Q.sum()) + int((~failed_Q).sum()))
    assert share == pytest.approx(expected, abs=0.05)
    loss(drawn[:6])
    assert loss.sampler.batch_p_N[pairs().row_Q[failed_Q]].sum().item() == pytest.approx(expected)


def test_they_still_teach_to_find_the_item() -> None:
    generator = Seeded(seed=0).apply()
    model = TwoTower(TwoTowerConfig(width=16, hidden=24, dropout=0.0), model_inputs())
    fit = FitConfig(epochs=40, batch_size=6, learning_rate=0.02)
    training = TwoTowerTraining(fit=fit, negatives=8, hard_positives=HardPositives(times=3, beyond_rank=2))
    train_two_tower(model, training, pairs(), item_batch(), generator)
    with torch.inference_mode():
        assert recall_at(model, pairs(), item_batch(), 1) > 0.9


def test_settings_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="times"):
        HardPositives(times=0.5)
    with pytest.raises(ValueError, match="beyond_rank"):
        HardPositives(beyond_rank=0)
