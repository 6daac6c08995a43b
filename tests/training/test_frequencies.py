"""The streaming estimate of how often batches hold an item."""

import pytest
import torch

from training.frequencies import StreamingFrequency
from training.samplers import MixedSampler


def test_the_estimate_is_one_over_the_mean_gap() -> None:
    frequency = StreamingFrequency(4, rate=0.2)
    for step in range(1, 101):
        frequency.observe(torch.tensor([0, 0] + [1] * (step % 2 == 0) + [2] * (step % 5 == 0)))
    chance = frequency.chance(torch.arange(4))
    torch.testing.assert_close(
        chance[:3], torch.tensor([1.0, 0.5, 0.2], dtype=torch.float64), atol=1e-3, rtol=0
    )
    assert chance[3].item() == pytest.approx(1 / 101), "never met, it is due"


def test_it_follows_an_item_that_comes_into_fashion() -> None:
    frequency = StreamingFrequency(1, rate=0.2)
    for step in range(1, 101):
        frequency.observe(torch.tensor([0] if step % 10 == 0 or step > 60 else [], dtype=torch.int64))
    assert frequency.chance(torch.tensor([0])).item() > 0.95


def test_streamed_and_counted_log_q_agree_for_rare_items() -> None:
    random = torch.Generator().manual_seed(0)
    p_N = torch.tensor([0.5, 0.25, 0.15, 0.08, 0.02])
    frequency = StreamingFrequency(5, rate=0.01)
    streamed = MixedSampler(p_N * 1000, drawn=0, frequency=frequency)
    counted = MixedSampler(p_N * 1000, drawn=0)
    for _ in range(3000):
        row_B = torch.multinomial(p_N, 2, replacement=True, generator=random)
        owner_B = torch.full((2,), -1)
        streamed.sample(row_B, owner_B, random)
    row_B = torch.tensor([3, 4])
    found = streamed.sample(row_B, owner_B, random).log_q_M
    # Counted are meetings, streamed are batches with any: 1 - (1 - p)^2 for 2 p.
    torch.testing.assert_close(found, counted.sample(row_B, owner_B, random).log_q_M, atol=0.25, rtol=0)


def test_a_rate_that_never_moves_is_refused() -> None:
    with pytest.raises(ValueError, match="rate"):
        StreamingFrequency(3, rate=0.0)
