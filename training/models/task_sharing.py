"""What the tasks of a ranker share: one bottom network, or experts that each task mixes for itself.

Caruana, "Multitask Learning" (Machine Learning 28, 1997) for the shared bottom. Ma et al., "Modeling Task
Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts" (KDD 2018) for experts. Dropout on
the gates' outputs keeps them from settling on one expert (Zhao et al., "Recommending What Video to Watch
Next", RecSys 2019, section 4.2).

Legend: … = any leading dimensions, W = width of the input, E = experts, H = width of the output, T = tasks.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from training.models.mlp import mlp


class SharedBottom(nn.Module):
    """One network whose output every task reads."""

    def __init__(self, in_width: int, widths: Sequence[int], tasks: int, *, dropout: float) -> None:
        super().__init__()
        self.network = mlp(in_width, widths, dropout=dropout)
        self.tasks = tasks

    def forward(self, x_W: Tensor) -> Tensor:
        """Return what each task reads […, T, H]: the same for all."""
        shared_H: Tensor = self.network(x_W)
        return shared_H.unsqueeze(-2).expand(*shared_H.shape[:-1], self.tasks, shared_H.shape[-1])


class Experts(nn.Module):
    """Shared experts mixed by one softmax gate per task."""

    def __init__(
        self,
        in_width: int,
        widths: Sequence[int],
        tasks: int,
        *,
        experts: int,
        dropout: float,
        gate_dropout: float,
    ) -> None:
        super().__init__()
        self.experts = nn.ModuleList(mlp(in_width, widths, dropout=dropout) for _ in range(experts))
        self.gates = nn.Linear(in_width, tasks * experts)
        self.gate_dropout = nn.Dropout(gate_dropout)
        self.tasks = tasks

    def forward(self, x_W: Tensor) -> Tensor:
        """Return each task's mixture […, T, H]."""
        expert_EH = torch.stack([expert(x_W) for expert in self.experts], dim=-2)
        gate_TE = self.gates(x_W).unflatten(-1, (self.tasks, len(self.experts))).softmax(dim=-1)
        mixed_TH: Tensor = self.gate_dropout(gate_TE) @ expert_EH
        return mixed_TH
