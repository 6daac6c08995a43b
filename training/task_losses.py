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
    """Tasks with what their training labels are like: a regression's mean and spread, watch time's unit."""

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
            scale, shift = 1.0, math.log(task.negatives)
            if task.kind == "regression":
                scale, shift = self.spreads[t], self.offsets[t]
            elif task.kind == "watch_time":
                shift = math.log(self.spreads[t])
            scales.append(scale)
            shifts.append(shift)
        return TaskLinks([task.kind for task in self.tasks], scales, shifts)


def fitted_tasks(tasks: Sequence[Task], label_QCT: Tensor, weight_QCT: Tensor) -> FittedTasks:
    """Return the tasks with the scale of their defined labels; ValueError where a task has none."""
    offsets, spreads = [], []
    for t, task in enumerate(tasks):
        defined_D = label_QCT[..., t][weight_QCT[..., t] > 0]
        offset, spread = 0.0, 1.0
        if task.kind in ("regression", "watch_time"):
            if not len(defined_D):
                raise ValueError(f"task {task.name!r} has no label that is defined")
            offset = float(defined_D.mean())
            std, median = float(defined_D.std(unbiased=False)), float(defined_D.median())
            spread = max(std, 1e-6) if task.kind == "regression" else max(median, 1e-6)
        offsets.append(offset)
        spreads.append(spread)
    return FittedTasks(tasks=tuple(tasks), offsets=tuple(offsets), spreads=tuple(spreads))


def pointwise_losses(fitted: FittedTasks, logit_BCT: Tensor, label_BCT: Tensor, weight_BCT: Tensor) -> Tensor:
    """Return each task's mean loss over what weighs [T]: cross-entropy, or half the squared error."""
    target_BCT = fitted.targets(label_BCT)
    loss_BCT = F.binary_cross_entropy_with_logits(logit_BCT, target_BCT.clamp(0.0, 1.0), reduction="none")
    squared_BCT = 0.5 * (logit_BCT - target_BCT).square()
    regress_T = torch.tensor([task.kind == "regression" for task in fitted.tasks])
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
