"""Losses of retrieval and ranking, on logits.

Legend: B = requests, N = negatives, C = candidates, T = tasks.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

MASKED = -1e9
"""The logit of something that must not count; finite, so that a row of nothing has no NaN gradient."""


def softmax_loss(positive_B: Tensor, negative_BN: Tensor, masked_BN: Tensor) -> Tensor:
    """Return the sampled softmax loss: one positive against its unmasked negatives (listwise).

    Logits arrive with log Q subtracted (`corrected`) where a sampler favours some items: Yi et al.,
    RecSys 2019.
    """
    logit_BM = torch.cat([positive_B.unsqueeze(1), negative_BN.masked_fill(masked_BN, MASKED)], dim=1)
    return -F.log_softmax(logit_BM, dim=1)[:, 0].mean()


def pointwise_loss(positive_B: Tensor, negative_BN: Tensor, masked_BN: Tensor) -> Tensor:
    """Return the binary cross-entropy, positives and negatives weighing the same."""
    kept_BN = (~masked_BN).to(negative_BN.dtype)
    negative = (F.softplus(negative_BN) * kept_BN).sum() / kept_BN.sum().clamp(min=1.0)
    return F.softplus(-positive_B).mean() + negative


def binary_pairs_loss(positive_B: Tensor, negative_BN: Tensor, masked_BN: Tensor) -> Tensor:
    """Return the binary cross-entropy, every positive and every unmasked negative weighing the same.

    So negatives weigh as they are drawn, two or three for each positive.
    """
    kept_BN = (~masked_BN).to(negative_BN.dtype)
    total = F.softplus(-positive_B).sum() + (F.softplus(negative_BN) * kept_BN).sum()
    return total / (len(positive_B) + kept_BN.sum())


def hinge_loss(positive_B: Tensor, negative_BN: Tensor, masked_BN: Tensor, *, margin: float = 1.0) -> Tensor:
    """Return the pairwise hinge max(0, negative + margin - positive), meant over unmasked pairs."""
    loss_BN = F.relu(negative_BN + margin - positive_B.unsqueeze(1))
    return _mean_of_unmasked(loss_BN, masked_BN)


def logistic_loss(positive_B: Tensor, negative_BN: Tensor, masked_BN: Tensor) -> Tensor:
    """Return the pairwise logistic log(1 + exp(negative - positive)), meant over unmasked pairs."""
    return _mean_of_unmasked(F.softplus(negative_BN - positive_B.unsqueeze(1)), masked_BN)


def _mean_of_unmasked(loss_BN: Tensor, masked_BN: Tensor) -> Tensor:
    kept_BN = (~masked_BN).to(loss_BN.dtype)
    return (loss_BN * kept_BN).sum() / kept_BN.sum().clamp(min=1.0)


def corrected(logit: Tensor, log_q: Tensor) -> Tensor:
    """Return logits minus the log of how likely the sampler draws each item (logQ correction)."""
    return logit - log_q


def listwise_loss(logit_BCT: Tensor, label_BCT: Tensor, present_BC: Tensor) -> Tensor:
    """Return each task's softmax cross-entropy over a request's candidates [T].

    Labels are relevances of at least 0, spread over several relevant candidates in proportion (ListNet's
    top-one form, Cao et al., 2007). Requests with nothing relevant to a task do not count for it.
    """
    log_p_BCT = F.log_softmax(logit_BCT.masked_fill(~present_BC.unsqueeze(-1), MASKED), dim=1)
    mass_BT = label_BCT.sum(dim=1)
    loss_BT = -(label_BCT * log_p_BCT).sum(dim=1) / mass_BT.clamp(min=1e-9)
    counts_BT = (mass_BT > 0).to(loss_BT.dtype)
    return (loss_BT * counts_BT).sum(dim=0) / counts_BT.sum(dim=0).clamp(min=1.0)


def binary_loss(logit_BCT: Tensor, label_BCT: Tensor, present_BC: Tensor) -> Tensor:
    """Return each task's binary cross-entropy over all present candidates [T]."""
    target_BCT = (label_BCT > 0).to(logit_BCT.dtype)
    loss_BCT = F.binary_cross_entropy_with_logits(logit_BCT, target_BCT, reduction="none")
    weight_BC1 = present_BC.to(logit_BCT.dtype).unsqueeze(-1)
    return (loss_BCT * weight_BC1).sum(dim=(0, 1)) / weight_BC1.sum().clamp(min=1.0)


def imitation_loss(student_BC: Tensor, teacher_BC: Tensor, present_BC: Tensor) -> Tensor:
    """Return the cross-entropy of a student's ranking against its teacher's (Hinton et al., 2015)."""
    student_log_p_BC = F.log_softmax(student_BC.masked_fill(~present_BC, MASKED), dim=1)
    teacher_p_BC = F.softmax(teacher_BC.masked_fill(~present_BC, MASKED), dim=1)
    return -(teacher_p_BC * student_log_p_BC).sum(dim=1).mean()
