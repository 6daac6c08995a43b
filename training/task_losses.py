"""Losses of tasks of every kind, over what is defined, and what makes their logits predictions.

Legend: Q = requests, B = batch, C = candidates, T = tasks, D = defined labels.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from training.losses import listwise_loss
from training.models.task_links import TaskLinks
from training.tasks import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedTasks:
    """Tasks with what their training labels are like.

    Those are a regression's mean and spread, watch time's unit, and the log-odds of what is served as a
    probability. A model learns what lies beyond them: a rare rate is far from 0 (Lin et al., "Focal Loss for
    Dense Object Detection", ICCV 2017, section 3.3).
    """

    tasks: tuple[Task, ...]
    offsets: tuple[float, ...]
    spreads: tuple[float, ...]

    @property
    def thins(self) -> bool:
        """Return whether a task looks at a share of its negatives alone."""
        return any(task.negatives < 1 for task in self.tasks)

    def targets(self, label_BCT: Tensor) -> Tensor:
        """Return what logits are trained towards [B, C, T]."""
        columns = []
        for t, task in enumerate(self.tasks):
            label_BC = label_BCT[..., t]
            if task.kind == "regression":
                label_BC = (label_BC - self.offsets[t]) / self.spreads[t]
            elif task.kind == "watch_time":
                time_BC = label_BC.clamp(min=0.0) / self.spreads[t]
                label_BC = time_BC / (1 + time_BC)
            elif task.kind == "completion" and not task.binary:
                label_BC = label_BC.clamp(0.0, 1.0)
            columns.append(label_BC)
        return torch.stack(columns, dim=-1)

    def links(self) -> TaskLinks:
        """Return what undoes the down-sampling of negatives and the scales of targets."""
        scales, shifts = [], []
        for t, task in enumerate(self.tasks):
            scale, shift = 1.0, self.offsets[t] + math.log(task.negatives)
            if task.kind == "regression":
                scale = self.spreads[t]
            elif task.kind == "watch_time":
                shift = math.log(self.spreads[t])
            scales.append(scale)
            shifts.append(shift)
        return TaskLinks([task.kind for task in self.tasks], scales, shifts)


def fitted_tasks(
    tasks: Sequence[Task], label_QCT: Tensor, weight_QCT: Tensor, *, at_rate: bool = True
) -> FittedTasks:
    """Return the tasks with what their defined labels are like.

    With `at_rate` a logit of 0 is the rate of a probability's labels, otherwise even odds.

    Raises ValueError where a regression or watch time has none.
    """
    offsets, spreads = [], []
    for t, task in enumerate(tasks):
        weight_QC = weight_QCT[..., t]
        defined_QC = weight_QC > 0
        defined_D = label_QCT[..., t][defined_QC]
        offset, spread = 0.0, 1.0
        if task.kind in ("regression", "watch_time") and not len(defined_D):
            raise ValueError(f"task {task.name!r} has no label that is defined")
        if task.kind == "regression":
            offset, spread = float(defined_D.mean()), max(float(defined_D.std(unbiased=False)), 1e-6)
        elif task.kind == "watch_time":
            spread = max(float(defined_D.median()), 1e-6)
        elif at_rate:
            offset = _log_odds(defined_D.clamp(0.0, 1.0), weight_QC[defined_QC], task.negatives)
        offsets.append(offset)
        spreads.append(spread)
    return FittedTasks(tasks=tuple(tasks), offsets=tuple(offsets), spreads=tuple(spreads))


def _log_odds(label_D: Tensor, weight_D: Tensor, negatives: float) -> float:
    """Return the log-odds of the labels that training looks at, finite where all are alike."""
    taken = float((weight_D * label_D).sum(dtype=torch.float64))
    passed = float((weight_D * (1.0 - label_D)).sum(dtype=torch.float64)) * negatives
    return math.log((taken + 0.5) / (passed + 0.5))


def pointwise_losses(fitted: FittedTasks, logit_BCT: Tensor, label_BCT: Tensor, weight_BCT: Tensor) -> Tensor:
    """Return each task's mean loss over what weighs [T]: cross-entropy, or half the squared error."""
    target_BCT = fitted.targets(label_BCT)
    regress_T = torch.tensor([task.kind == "regression" for task in fitted.tasks])
    log_odds_BCT = logit_BCT + torch.tensor(fitted.offsets).masked_fill(regress_T, 0.0)
    loss_BCT = F.binary_cross_entropy_with_logits(log_odds_BCT, target_BCT.clamp(0.0, 1.0), reduction="none")
    squared_BCT = 0.5 * (logit_BCT - target_BCT).square()
    loss_BCT = torch.where(regress_T, squared_BCT, loss_BCT) * weight_BCT
    return loss_BCT.sum(dim=(0, 1)) / weight_BCT.sum(dim=(0, 1)).clamp(min=1e-9)


def listwise_losses(fitted: FittedTasks, logit_BCT: Tensor, label_BCT: Tensor, weight_BCT: Tensor) -> Tensor:
    """Return each binary task's softmax cross-entropy over what is defined [T]; 0 for other tasks."""
    losses = []
    for t, task in enumerate(fitted.tasks):
        if task.kind != "binary":
            losses.append(logit_BCT.new_zeros(()))
            continue
        weight_BC = weight_BCT[..., t]
        relevance_BC = label_BCT[..., t] * weight_BC
        losses.append(
            listwise_loss(logit_BCT[..., t : t + 1], relevance_BC.unsqueeze(-1), weight_BC > 0).squeeze(0)
        )
    return torch.stack(losses)


def thinned(fitted: FittedTasks, label_BCT: Tensor, weight_BCT: Tensor, generator: torch.Generator) -> Tensor:
    """Return the weights [B, C, T] with each negative left out but for its task's share of them."""
    keep_T = torch.tensor([task.negatives for task in fitted.tasks])
    kept_BCT = torch.rand(label_BCT.shape, generator=generator) < keep_T
    return torch.where((label_BCT > 0) | kept_BCT, weight_BCT, 0.0)
