"""Mixed negative sampling and its logQ."""

import pytest
import torch

from training.samplers import MixedSampler

COUNTS = torch.tensor([90, 9, 1, 0])
NOBODY = torch.full((3,), -1)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def test_scores_the_positives_and_the_drawn_items_once_each() -> None:
    sampled = MixedSampler(COUNTS, drawn=50).sample(torch.tensor([2, 0, 2]), NOBODY, generator())
    assert sampled.row_M.tolist() == [0, 1, 2, 3]
    assert sampled.row_M[sampled.positive_B].tolist() == [2, 0, 2]


def test_in_batch_only_draws_nothing() -> None:
    sampled = MixedSampler(COUNTS, drawn=0).sample(torch.tensor([2, 0, 2]), NOBODY, generator())
    assert sampled.row_M.tolist() == [0, 2]
    torch.testing.assert_close(sampled.log_q_M.exp(), torch.tensor([3 * 0.9, 3 * 0.01]))


def test_log_q_is_the_expected_number_of_meetings() -> None:
    sampler = MixedSampler(COUNTS, drawn=8)
    met = torch.zeros(4)
    random = generator()
    rounds = 4000
    for _ in range(rounds):
        positives = torch.multinomial(COUNTS.double(), 3, replacement=True, generator=random)
        drawn = torch.multinomial(sampler.drawn_p_N, 8, replacement=True, generator=random)
        met += torch.bincount(torch.cat([positives, drawn]), minlength=4)
    sampled = MixedSampler(COUNTS, drawn=400).sample(torch.tensor([0, 1, 2]), NOBODY, generator())
    assert len(sampled.row_M) == 4
    expected = 3 * sampler.batch_p_N + 8 * sampler.drawn_p_N
    torch.testing.assert_close(met.double() / rounds, expected, rtol=0.05, atol=0.02)
    torch.testing.assert_close(
        sampled.log_q_M.double().exp(), 3 * sampler.batch_p_N + 400 * sampler.drawn_p_N, rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(("power", "ratio"), [(0.0, 1.0), (0.5, 90**0.5), (0.75, 90**0.75)])
def test_power_sets_how_much_popularity_counts(power: float, ratio: float) -> None:
    sampler = MixedSampler(COUNTS, drawn=1, power=power)
    assert (sampler.drawn_p_N[0] / sampler.drawn_p_N[2]).item() == pytest.approx(ratio)
    assert sampler.drawn_p_N[3] > 0, "items without events are drawn too"


def test_positives_of_one_owner_are_no_negatives_of_each_other() -> None:
    sampler = MixedSampler(COUNTS, drawn=0)
    sampled = sampler.sample(torch.tensor([0, 1, 2]), torch.tensor([5, 5, 6]), generator())
    assert sampled.masked_BM.tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_items_of_the_batch_need_not_be_negatives_of_each_other() -> None:
    sampler = MixedSampler(COUNTS, drawn=400, in_batch=False)
    sampled = sampler.sample(torch.tensor([2, 0, 2]), NOBODY, generator())
    assert not sampled.masked_BM[1, 2], "it was drawn"
    alone = MixedSampler(COUNTS, drawn=1, power=9.0, in_batch=False)
    sampled = alone.sample(torch.tensor([2, 2, 2]), NOBODY, generator())
    assert sampled.row_M.tolist() == [0, 2]
    assert sampled.masked_BM.tolist() == [[False, True]] * 3
    torch.testing.assert_close(sampled.log_q_M.exp().double(), alone.drawn_p_N[[0, 2]].clamp(min=1e-9))


def test_log_q_goes_by_how_often_examples_are_drawn() -> None:
    sampler = MixedSampler(COUNTS, drawn=0, batch_counts_N=COUNTS**0.5)
    sampled = sampler.sample(torch.tensor([0, 2]), torch.tensor([-1, -1]), generator())
    assert (sampled.log_q_M[0] - sampled.log_q_M[1]).exp().item() == pytest.approx(90**0.5)


def test_a_batch_without_negatives_is_refused() -> None:
    with pytest.raises(ValueError, match="drawn ones"):
        MixedSampler(COUNTS, drawn=0, in_batch=False)


def test_a_negative_number_of_draws_is_refused() -> None:
    with pytest.raises(ValueError, match="drawn"):
        MixedSampler(COUNTS, drawn=-1)
