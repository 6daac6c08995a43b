"""Many small logistic regressions with a ridge penalty and offsets, solved together by Newton's method.

Legend: E = examples, G = regressions that have examples, M = rows of their table, F = coefficients of one,
B = regressions with about as many examples, L = examples of one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

_TOGETHER = 1 << 15
"""Examples whose numbers are multiplied at once."""
_HALVINGS = 12


def weighted_log_loss(logit_E: Tensor, label_E: Tensor, weight_E: Tensor) -> Tensor:
    """Return each example's log loss times its weight [E]."""
    return weight_E * F.binary_cross_entropy_with_logits(logit_E, label_E, reduction="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class RidgeProblems:
    """Logistic regressions of all users or items, with a ridge penalty and offsets, to be solved together."""

    row_E: Tensor
    number_EF: Tensor
    label_E: Tensor
    weight_E: Tensor
    offset_E: Tensor
    l2: float


def fit_table(
    start_MF: Tensor, problem: RidgeProblems, most_steps: int, tolerance: float
) -> tuple[Tensor, int]:
    """Return the table with the rows fitted that examples have, and the Newton steps taken; row 0 stays.

    A row without examples goes to zero, which is where the penalty alone has it.
    """
    known = problem.row_E > 0
    rows_G, at_E = torch.unique(problem.row_E[known], return_inverse=True)
    order = torch.argsort(at_E, stable=True)
    groups = _Groups(
        at_E=at_E[order],
        number_EF=problem.number_EF[known][order],
        label_E=problem.label_E[known][order],
        weight_E=problem.weight_E[known][order],
        offset_E=problem.offset_E[known][order],
        l2=problem.l2,
        count=len(rows_G),
        alike=_alike(at_E[order], len(rows_G)),
    )
    beta_GF, steps = groups.solved(start_MF[rows_G], most_steps, tolerance)
    table_MF = torch.zeros_like(start_MF)
    table_MF[rows_G] = beta_GF
    return table_MF, steps


@dataclass(frozen=True, slots=True, kw_only=True)
class _Groups:
    """The examples of `RidgeProblems` in the order of their groups."""

    at_E: Tensor
    number_EF: Tensor
    label_E: Tensor
    weight_E: Tensor
    offset_E: Tensor
    l2: float
    count: int
    alike: Sequence[tuple[Tensor, Tensor]]

    def solved(self, beta_GF: Tensor, most_steps: int, tolerance: float) -> tuple[Tensor, int]:
        """Return each group's minimum by Newton's method with halved steps, and the steps taken."""
        loss_G = self._loss(beta_GF)
        for taken in range(most_steps):
            slope_GF, curve_GFF = self._derivatives(beta_GF)
            if not len(slope_GF) or float(slope_GF.abs().max()) < tolerance:
                return beta_GF, taken
            step_GF = torch.linalg.solve(curve_GFF, slope_GF.unsqueeze(-1)).squeeze(-1)
            beta_GF, loss_G = self._stepped(beta_GF, step_GF, loss_G)
        return beta_GF, most_steps

    def _stepped(self, beta_GF: Tensor, step_GF: Tensor, loss_G: Tensor) -> tuple[Tensor, Tensor]:
        """Return what the longest of 1, 1/2, 1/4 … of each group's step that raises no loss leads to."""
        size_G1 = torch.ones(self.count, 1, dtype=beta_GF.dtype)
        for _ in range(_HALVINGS):
            tried_GF = beta_GF - size_G1 * step_GF
            tried_G = self._loss(tried_GF)
            worse_G1 = (tried_G > loss_G).unsqueeze(1)
            if not worse_G1.any():
                return tried_GF, tried_G
            size_G1 = torch.where(worse_G1, size_G1 / 2, size_G1)
        kept_GF = torch.where(worse_G1, beta_GF, tried_GF)
        return kept_GF, torch.where(worse_G1.squeeze(1), loss_G, tried_G)

    def _logit(self, beta_GF: Tensor) -> Tensor:
        return self.offset_E + (beta_GF[self.at_E] * self.number_EF).sum(dim=1)

    def _loss(self, beta_GF: Tensor) -> Tensor:
        loss_E = weighted_log_loss(self._logit(beta_GF), self.label_E, self.weight_E)
        penalty_G = 0.5 * self.l2 * beta_GF.square().sum(dim=1)
        return penalty_G.index_add(0, self.at_E, loss_E)

    def _derivatives(self, beta_GF: Tensor) -> tuple[Tensor, Tensor]:
        """Return each group's gradient [G, F] and Hessian [G, F, F]."""
        p_E = torch.sigmoid(self._logit(beta_GF))
        error_E = self.weight_E * (p_E - self.label_E)
        slope_GF = (self.l2 * beta_GF).index_add(0, self.at_E, error_E.unsqueeze(1) * self.number_EF)
        curvature_P = F.pad(self.weight_E * p_E * (1 - p_E), (0, 1))
        number_PF = F.pad(self.number_EF, (0, 0, 0, 1))
        curve_GFF = (self.l2 * torch.eye(self.number_EF.shape[1], dtype=p_E.dtype)).repeat(self.count, 1, 1)
        for groups_B, at_BL in self.alike:
            number_BLF = number_PF[at_BL]
            curve_GFF[groups_B] += (curvature_P[at_BL].unsqueeze(-1) * number_BLF).mT @ number_BLF
        return slope_GF, curve_GFF


def _alike(at_E: Tensor, count: int) -> list[tuple[Tensor, Tensor]]:
    """Return groups of about equal size together [B], each with its examples [B, L], padded with E.

    `at_E` rises. Padding is less than half, so that all of them are a few products of matrices.
    """
    size_G = torch.bincount(at_E, minlength=count)
    start_G = size_G.cumsum(0) - size_G
    power_G = size_G.to(torch.float64).log2().ceil().to(torch.int64)
    found = []
    for power in sorted(set(power_G.tolist())):
        for groups_B in (power_G == power).nonzero().squeeze(1).split(max(1, _TOGETHER >> power)):
            place_L = torch.arange(1 << power)
            held_BL = place_L < size_G[groups_B].unsqueeze(1)
            found.append(
                (groups_B, torch.where(held_BL, start_G[groups_B].unsqueeze(1) + place_L, len(at_E)))
            )
    return found
