"""Losses against the negatives of each source, and how weight goes over from one to the other."""

import math
from dataclasses import replace

import pytest
import torch

from tests.training.model_batches import ITEMS, item_batch, model_inputs, request_batch
from training import losses
from training.hard_negatives import HardNegatives
from training.models.two_tower import TwoTower, TwoTowerConfig
from training.retrieval import RetrievalLoss, RetrievalSet, recall_at, train_two_tower
from training.samplers import Sampled, Sources
from training.trainer import FitConfig, Seeded
from training.two_tower_training import TwoTowerTraining
from training.weighted_sources import SourceShift, SourceWeights

WEIGHTS = SourceWeights(uniform=1.0, in_batch=2.0, hard=3.0, hardest=1, warmup_epochs=1, shift_epochs=2)


def pairs() -> RetrievalSet:
    return RetrievalSet(
        request=request_batch(12), row_Q=torch.arange(12) % ITEMS, owner_Q=torch.full((12,), -1)
    )


def step(sources: SourceWeights, *, log_q: bool = True) -> RetrievalLoss:
    generator = Seeded(seed=0).apply()
    model = TwoTower(TwoTowerConfig(width=16, hidden=24, dropout=0.0), model_inputs())
    training = TwoTowerTraining(sources=sources, negatives=8, log_q=log_q, fit=FitConfig(batch_size=6))
    return RetrievalLoss(model, training, pairs(), item_batch(), generator)


def test_weight_goes_over_from_uniform_negatives_in_a_line() -> None:
    assert WEIGHTS.at(0.0) == WEIGHTS.at(1.0) == (6.0, 0.0, 0.0)
    assert WEIGHTS.at(2.0) == (3.5, 1.0, 1.5)
    assert WEIGHTS.at(3.0) == WEIGHTS.at(9.0) == (1.0, 2.0, 3.0)
    assert SourceWeights().at(0.0) == (1.0, 1.0, 1.0)
    assert SourceWeights(warmup_epochs=2).at(1.9) == (3.0, 0.0, 0.0)


def test_steps_count_and_come_back_with_a_checkpoint() -> None:
    shift = SourceShift(WEIGHTS, steps_per_epoch=2)
    assert [shift.advance()[0] for _ in range(5)] == [6.0, 6.0, 6.0, 4.75, 3.5]
    again = SourceShift(WEIGHTS, steps_per_epoch=2)
    again.load_state_dict(shift.state_dict())
    assert again.advance() == shift.advance()


def test_each_source_has_a_loss_of_its_own() -> None:
    logit_BM = torch.tensor([[3.0, 1.0, 2.0, 0.5]])
    sampled = Sampled(
        row_M=torch.arange(4),
        log_q_M=torch.zeros(4),
        positive_B=torch.tensor([0]),
        masked_BM=torch.tensor([[True, False, False, False]]),
        hard_BM=torch.zeros(1, 4, dtype=torch.bool),
        by_source=Sources(
            drawn_M=torch.tensor([False, True, False, True]),
            batch_M=torch.tensor([True, False, True, False]),
            drawn_times_M=torch.full((4,), 2.0),
            batch_times_M=torch.tensor([1.0, 1.0, math.e, 1.0]),
        ),
    )
    end = replace(WEIGHTS, warmup_epochs=0.0, shift_epochs=0.0)
    one = step(end)
    assert one.shift is not None
    found = one._against_each(one.shift, logit_BM, sampled)
    uniform = math.log(1 + math.exp(-2) + math.exp(-2.5))
    in_batch = math.log(1 + math.exp(2 - 1 - 3))
    hard = math.log(1 + math.exp(2 - 3))
    assert found.item() == pytest.approx(uniform + 2 * in_batch + 3 * hard)
    plain = step(end, log_q=False)
    assert plain.shift is not None
    expected = uniform + 2 * math.log(1 + math.exp(2 - 3)) + 3 * hard
    assert plain._against_each(plain.shift, logit_BM, sampled).item() == pytest.approx(expected)


def test_warm_up_is_the_loss_against_drawn_items_alone() -> None:
    loss = step(SourceWeights(warmup_epochs=1, shift_epochs=1))
    batch_B = loss.batches()[0]
    state = loss.generator.get_state()
    value = loss(batch_B)
    loss.generator.set_state(state)
    sampled = loss.sampler.sample(pairs().row_Q[batch_B], pairs().owner_Q[batch_B], loss.generator)
    examples = {name: part[batch_B] for name, part in pairs().request.items()}  # type: ignore[union-attr]
    items = {name: part[sampled.row_M] for name, part in item_batch().items()}
    logit_BM = loss.model.compare(loss.model.encode_query(examples), items)
    positive_B = logit_BM.gather(1, sampled.positive_B.unsqueeze(1)).squeeze(1)
    masked_BM = sampled.masked_BM | ~sampled.by_source.drawn_M
    torch.testing.assert_close(value, 3 * losses.softmax_loss(positive_B, logit_BM, masked_BM))


def test_sources_teach_to_find_the_item_also_with_mined_ones() -> None:
    generator = Seeded(seed=0).apply()
    model = TwoTower(TwoTowerConfig(width=16, hidden=24, dropout=0.0), model_inputs())
    training = TwoTowerTraining(
        fit=FitConfig(epochs=40, batch_size=6, learning_rate=0.02),
        negatives=8,
        sources=SourceWeights(hardest=2, warmup_epochs=4, shift_epochs=10),
        hard=HardNegatives(per_positive=1, first_rank=2, last_rank=9, kept=4),
    )
    train_two_tower(model, training, pairs(), item_batch(), generator)
    with torch.inference_mode():
        assert recall_at(model, pairs(), item_batch(), 1) > 0.9


def test_weights_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="nor all of them 0"):
        SourceWeights(uniform=0, in_batch=0, hard=0)
    with pytest.raises(ValueError, match="warmup_epochs"):
        SourceWeights(shift_epochs=-1)
    with pytest.raises(ValueError, match="hardest"):
        SourceWeights(hardest=0)
    with pytest.raises(ValueError, match="sources need negatives"):
        TwoTowerTraining(sources=SourceWeights(), counted="random")
