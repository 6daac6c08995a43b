"""What a ranker's predictions become when serving, fitted on requests held out of training.

Exponents and thresholds of the fused score go by the NDCG@10 of the first task; f(length), which a completion
is divided by, is the mean label of items of about that length. Logits are calibrated by a scale and a shift.

Legend: Q = requests, C = candidates, N = items, T = tasks, D = defined labels, K = points of a line.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from shards.forward_index import ForwardIndex
from shards.length_adjustment import LengthAdjustment
from shards.merging import BELOW_THRESHOLD
from training.models.task_links import TaskLinks
from training.ranking import RankingSet, ndcg_at_10
from training.tasks import Task

_EXPONENTS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.5)
_CUT_SHARES = (0.05, 0.1, 0.2, 0.4)
"""Shares of candidates that a threshold may set back."""
_SMALLEST = 1e-12
_POINTS = 12
"""Points of f(length)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskServing:
    """How predictions of tasks are served and fused, by task."""

    exponents: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)
    adjustments: Mapping[str, LengthAdjustment] = field(default_factory=dict)


def fused(prediction_QCT: Tensor, exponents: Sequence[float], thresholds: Sequence[float] = ()) -> Tensor:
    """Return the log of the fused score [Q, C]: the sum over tasks of exponent * log prediction.

    What is below a task's threshold loses as much as when serving.
    """
    log_QCT = prediction_QCT.clamp(min=_SMALLEST).log()
    score_QC = (log_QCT * torch.tensor(exponents)).sum(dim=-1)
    for t, threshold in enumerate(thresholds):
        score_QC = score_QC - BELOW_THRESHOLD * (prediction_QCT[..., t] < threshold)
    return score_QC


def tune_exponents(prediction_QCT: Tensor, examples: RankingSet) -> tuple[float, ...]:
    """Return each task's exponent: 1 for the first, for the others what gives the best NDCG@10."""
    chosen = [1.0] + [0.0] * (prediction_QCT.shape[-1] - 1)
    for task in range(1, len(chosen)):
        options = [[*chosen[:task], e, *chosen[task + 1 :]] for e in _EXPONENTS]
        chosen = max(options, key=lambda option: ndcg_at_10(fused(prediction_QCT, option), examples))
    return tuple(chosen)


def tune_thresholds(
    prediction_QCT: Tensor, examples: RankingSet, exponents: Sequence[float]
) -> tuple[float, ...]:
    """Return each task's threshold, 0 unless one gives a better NDCG@10."""
    chosen = [0.0] * prediction_QCT.shape[-1]
    for task in range(len(chosen)):
        present_D = prediction_QCT[..., task][examples.present_QC]
        cuts = torch.quantile(present_D[:1_000_000], torch.tensor(_CUT_SHARES)).tolist()
        options = [[*chosen[:task], cut, *chosen[task + 1 :]] for cut in (0.0, *cuts)]
        chosen = max(
            options, key=lambda option: ndcg_at_10(fused(prediction_QCT, exponents, option), examples)
        )
    return tuple(chosen)


def fitted_serving(
    tasks: Sequence[Task], items: ForwardIndex, train: RankingSet, judged: RankingSet, prediction_QCT: Tensor
) -> tuple[TaskServing, float]:
    """Return how predictions are served, and the NDCG@10 of the fused score, on the requests held out.

    f(length) goes by the labels that were trained on.
    """
    names = [task.name for task in tasks]
    adjustments, adjusted_QCT = {}, prediction_QCT.clone()
    for t, task in enumerate(tasks):
        if task.length:
            length_N = lengths(items, task.length)
            adjustment = fitted_lengths(task, t, length_N, train)
            expected_N = torch.from_numpy(adjustment.expected_of(length_N))
            adjusted_QCT[..., t] /= expected_N[judged.row_QC]
            adjustments[task.name] = adjustment
    exponents = tune_exponents(adjusted_QCT, judged)
    thresholds = tune_thresholds(adjusted_QCT, judged, exponents)
    serving = TaskServing(
        exponents=dict(zip(names, exponents, strict=True)),
        thresholds={name: cut for name, cut in zip(names, thresholds, strict=True) if cut > 0},
        adjustments=adjustments,
    )
    return serving, ndcg_at_10(fused(adjusted_QCT, exponents, thresholds), judged)


def lengths(items: ForwardIndex, column: str) -> NDArray[np.float64]:
    """Return the lengths of all items [N], NaN where there is none."""
    values = items.columns((column,))[column]
    return np.array([np.nan if value is None else value for value in values], np.float64)


def fitted_lengths(task: Task, t: int, length_N: NDArray[np.float64], train: RankingSet) -> LengthAdjustment:
    """Return the mean label by length: points of equally many labels, and a line through them.

    Raises ValueError where no label is defined.
    """
    defined_QC = (train.weight_QCT[..., t] > 0).numpy()
    label_D = train.label_QCT[..., t].numpy()[defined_QC].astype(np.float64)
    length_D = length_N[train.row_QC.numpy()[defined_QC]]
    if not len(label_D):
        raise ValueError(f"task {task.name!r} has no label that is defined")
    overall = max(float(label_D.mean()), 1e-6)
    known = ~np.isnan(length_D)
    points = _points(length_D[known], label_D[known]) if known.any() else {0.0: overall}
    return LengthAdjustment(
        column=task.length, lengths=tuple(points), expected=tuple(points.values()), overall=overall
    )


def _points(length_D: NDArray[np.float64], label_D: NDArray[np.float64]) -> dict[float, float]:
    """Return the mean label at the mean length of parts of about equally many labels, shortest first."""
    cuts = np.unique(np.quantile(length_D, np.linspace(0, 1, _POINTS + 1)[1:-1]))
    part_D = np.searchsorted(cuts, length_D, side="left")
    parts = [part_D == part for part in np.unique(part_D)]
    return {float(length_D[part].mean()): max(float(label_D[part].mean()), 1e-6) for part in parts}


def calibrated(links: TaskLinks, tasks: Sequence[Task], logit_QCT: Tensor, judged: RankingSet) -> TaskLinks:
    """Return links with a scale and a shift fitted to what is defined, of tasks that serve a probability.

    Platt, "Probabilistic Outputs for Support Vector Machines", 1999. A task of one outcome keeps its own.
    """
    scales, shifts = links.scale_T.tolist(), links.shift_T.tolist()
    for t, task in enumerate(tasks):
        weight_D = judged.weight_QCT[..., t]
        defined = weight_D > 0
        label_D = judged.label_QCT[..., t][defined].double()
        if task.kind not in ("binary", "completion") or not len(label_D) or label_D.min() == label_D.max():
            continue
        moved_D = logit_QCT[..., t][defined].double() * scales[t] + shifts[t]
        scale, shift = _platt(moved_D, label_D, weight_D[defined].double())
        if scale > 0:
            scales[t], shifts[t] = scales[t] * scale, shifts[t] * scale + shift
    return TaskLinks(links.kinds, scales, shifts)


def _platt(logit_D: Tensor, label_D: Tensor, weight_D: Tensor) -> tuple[float, float]:
    """Return the scale and shift of the least cross-entropy, by Newton's method.

    The scale is expected to be 1 ± 1/2, which counts where labels are few; the shift is free, so that the sum
    of the probabilities is that of the labels.
    """
    input_D2 = torch.stack([logit_D, torch.ones_like(logit_D)], dim=1)
    start_2 = theta_2 = torch.tensor([1.0, 0.0], dtype=torch.float64)
    ridge_22 = torch.diag(torch.tensor([4.0, 1e-3], dtype=torch.float64))
    for _ in range(30):
        p_D = (input_D2 @ theta_2).sigmoid()
        gradient_2 = input_D2.T @ (weight_D * (p_D - label_D)) + ridge_22 @ (theta_2 - start_2)
        hessian_22 = input_D2.T @ (input_D2 * (weight_D * p_D * (1 - p_D)).unsqueeze(1)) + ridge_22
        step_2 = torch.linalg.solve(hessian_22, gradient_2).clamp(-2.0, 2.0)
        theta_2 = theta_2 - step_2
        if float(step_2.abs().max()) < 1e-8:
            break
    return float(theta_2[0]), float(theta_2[1])
