"""Multi-gate mixture-of-experts ranker over user, item, history and cross features.

Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts" (KDD
2018): experts are shared, every task has a softmax gate over them and a tower of its own. Dropout on the
gates' outputs keeps them from settling on one expert (Zhao et al., "Recommending What Video to Watch Next",
RecSys 2019, section 4.2).

Legend: B = requests, C = candidates, N = items, L = events, D = embedding width, K = cross features, W =
width of the experts' input, E = experts, H = width of an expert, T = tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.models.fields import FieldEncoder, ModelInputs, embedding_tables
from training.models.history import AttentionPool, HistoryEncoder
from training.models.mlp import mlp


@dataclass(frozen=True, slots=True, kw_only=True)
class MMoERankerConfig:
    """Sizes of the ranker."""

    width: int = 32
    hidden: int = 64
    experts: int = 4
    expert_width: int = 32
    dropout: float = 0.1
    gate_dropout: float = 0.1
    tasks: tuple[str, ...]


class Experts(nn.Module):
    """Shared experts mixed by one softmax gate per task."""

    def __init__(self, in_width: int, config: MMoERankerConfig) -> None:
        super().__init__()
        self.experts = nn.ModuleList(
            mlp(in_width, (config.hidden, config.expert_width), dropout=config.dropout)
            for _ in range(config.experts)
        )
        self.gates = nn.Linear(in_width, len(config.tasks) * config.experts)
        self.gate_dropout = nn.Dropout(config.gate_dropout)
        self.tasks = len(config.tasks)

    def forward(self, x_BCW: Tensor) -> Tensor:
        """Return each task's mixture [B, C, T, H]."""
        expert_BCEH = torch.stack([expert(x_BCW) for expert in self.experts], dim=-2)
        gate_BCTE = self.gates(x_BCW).unflatten(-1, (self.tasks, len(self.experts))).softmax(dim=-1)
        mixed_BCTH: Tensor = self.gate_dropout(gate_BCTE) @ expert_BCEH
        return mixed_BCTH


class MMoERanker(nn.Module):
    """Predicts one logit per task for every candidate; what depends on the request alone is computed once."""

    def __init__(self, config: MMoERankerConfig, inputs: ModelInputs) -> None:
        super().__init__()
        width = config.width
        self.tables = embedding_tables(inputs.tables, width)
        self.request_fields = FieldEncoder(inputs.request, self.tables, width)
        self.item_fields = FieldEncoder(inputs.item, self.tables, width)
        self.request_tower = mlp(
            self.request_fields.out_width, (config.hidden, width), dropout=config.dropout
        )
        self.item_tower = mlp(self.item_fields.out_width, (config.hidden, width), dropout=config.dropout)
        self.history = HistoryEncoder(inputs.history, self.tables, width) if inputs.history else None
        self.attention = AttentionPool(width) if inputs.history else None
        in_width = len(inputs.cross) + width * (5 if self.history else 3)
        self.experts = Experts(in_width, config)
        self.task_towers = nn.ModuleList(
            mlp(config.expert_width, (config.expert_width // 2, 1)) for _ in config.tasks
        )

    def encode_item(self, item: Mapping[str, Tensor]) -> Tensor:
        """Return item vectors [N, D]."""
        return self.item_tower(self.item_fields(item))  # type: ignore[no-any-return]

    def score(self, request: Mapping[str, Tensor], item_BCD: Tensor, cross_BCK: Tensor) -> Tensor:
        """Return the logits [B, C, T] of candidates with these item vectors and cross features."""
        request_BCD = self.request_tower(self.request_fields(request)).unsqueeze(1).expand_as(item_BCD)
        parts = [cross_BCK, request_BCD, item_BCD, request_BCD * item_BCD]
        if self.history is not None and self.attention is not None:
            history_BCD = self.attention(item_BCD, *self.history(request))
            parts += [history_BCD, history_BCD * item_BCD]
        mixed_BCTH = self.experts(torch.cat(parts, dim=-1))
        logits = [tower(mixed_BCTH[..., task, :]) for task, tower in enumerate(self.task_towers)]
        return torch.cat(logits, dim=-1)

    def forward(
        self, request: Mapping[str, Tensor], item: Mapping[str, Tensor], row_BC: Tensor, cross_BCK: Tensor
    ) -> Tensor:
        """Return the logits [B, C, T] of the candidates at rows [B, C] of the items [N, …]."""
        return self.score(request, self.encode_item(item)[row_BC], cross_BCK)
