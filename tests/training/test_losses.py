"""Losses against values worked out by hand."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from training.losses import (
    binary_loss,
    binary_pairs_loss,
    corrected,
    hinge_loss,
    imitation_loss,
    listwise_loss,
    logistic_loss,
    pointwise_loss,
    softmax_loss,
)

POSITIVE = torch.tensor([1.0, 0.0])
NEGATIVE = torch.tensor([[0.5, 9.0], [2.0, 0.0]])
MASKED = torch.tensor([[False, True], [False, False]])


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (softmax_loss, (math.log1p(math.exp(-0.5)) + math.log(2.0 + math.exp(2.0))) / 2),
        (hinge_loss, (0.5 + 3.0 + 1.0) / 3),
        (logistic_loss, sum(math.log1p(math.exp(x)) for x in (-0.5, 2.0, 0.0)) / 3),
        (
            pointwise_loss,
            sum(math.log1p(math.exp(x)) for x in (-1.0, 0.0)) / 2
            + sum(math.log1p(math.exp(x)) for x in (0.5, 2.0, 0.0)) / 3,
        ),
        (binary_pairs_loss, sum(math.log1p(math.exp(x)) for x in (-1.0, 0.0, 0.5, 2.0, 0.0)) / 5),
    ],
)
def test_retrieval_losses_by_hand(loss: Callable[[Tensor, Tensor, Tensor], Tensor], expected: float) -> None:
    assert loss(POSITIVE, NEGATIVE, MASKED).item() == pytest.approx(expected, abs=1e-6)


def test_log_q_correction_makes_a_biased_sample_agree_with_the_full_softmax() -> None:
    logits = torch.tensor([0.3, -0.2, 1.1])
    drawn = torch.tensor([0, 0, 0, 1, 2])  # Item 0 is drawn three times as often as the others.
    log_q = torch.tensor([3.0, 1.0, 1.0]).log()
    partition = corrected(logits, log_q)[drawn].exp().sum()
    assert partition.item() == pytest.approx(logits.exp().sum().item(), rel=1e-6)


def test_listwise_loss_spreads_over_relevant_candidates_and_skips_requests_without() -> None:
    logits = torch.tensor([[[0.0], [0.0], [7.0]], [[1.0], [2.0], [3.0]]])
    labels = torch.tensor([[[1.0], [1.0], [0.0]], [[0.0], [0.0], [0.0]]])
    present = torch.tensor([[True, True, False], [True, True, True]])
    torch.testing.assert_close(listwise_loss(logits, labels, present), torch.tensor([math.log(2.0)]))


def test_binary_loss_counts_present_candidates_only() -> None:
    logits = torch.zeros(1, 3, 2)
    labels = torch.tensor([[[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]]])
    present = torch.tensor([[True, True, False]])
    torch.testing.assert_close(binary_loss(logits, labels, present), torch.full((2,), math.log(2.0)))


def test_imitation_is_least_when_the_student_agrees() -> None:
    teacher = torch.tensor([[2.0, 0.0, -1.0, 5.0]])
    present = torch.tensor([[True, True, True, False]])
    agreeing = imitation_loss(teacher + 3.0, teacher, present)
    assert agreeing < imitation_loss(-teacher, teacher, present)
    p = teacher[0, :3].softmax(dim=0)
    assert agreeing.item() == pytest.approx(-(p * p.log()).sum().item(), abs=1e-6)
