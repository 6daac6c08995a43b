"""A ranker of several tasks over user, item, history and cross features, built from published blocks.

What each block is and where it comes from stands in its file: `task_sharing` (shared bottom, MMoE),
`cross_network` (DCN-V2), `field_crosses` (SENet, bilinear, FiBiNET), `user_gates` (LHUC, PPNet),
`activation_pool` (DIN), `searched_history` (SIM), `history` (mean and attention). As it comes it is an MMoE
with attention.

Legend: B = requests, C = candidates, N = items, L = events, D = embedding width, K = cross features, W and
H = widths of what goes into and comes out of what tasks share, T = tasks, F = fields, I = numbers kept of
an item.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.activation_pool import ActivationPool
from training.models.cross_network import CrossNetwork
from training.models.feature_scale import FeatureScale
from training.models.field_crosses import FieldCrosses, FieldCrossing, Matrices, Product
from training.models.fields import FieldEncoder, FieldVectors, ModelInputs, embedding_tables
from training.models.history import AttentionPool, HistoryEncoder, mean_pool
from training.models.mlp import mlp
from training.models.searched_history import HistorySearch, SearchedPool
from training.models.task_sharing import Experts, SharedBottom
from training.models.user_gates import UserGate

HistoryPool = Literal["mean", "attention", "activation", "search"]
"""How a history becomes one vector: alike for all candidates, or for each by dot products, by DIN's network
or by SIM's search in a long one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MultiTaskRankerConfig:
    """Sizes of the ranker, and the blocks that it is built from."""

    width: int = 32
    hidden: int = 64
    dropout: float = 0.1
    tasks: tuple[str, ...]
    sharing: Literal["experts", "bottom"] = "experts"
    experts: int = 4
    expert_width: int = 32
    gate_dropout: float = 0.1
    history: HistoryPool = "attention"
    search: HistorySearch = "hard"
    """How "search" finds events: of the candidate's category, or of the nearest items."""
    found: int = 50
    """Events that "search" finds for a candidate."""
    cross_layers: int = 0
    """Layers of the cross network (DCN-V2) before what the tasks share; 0: none."""
    cross_rank: int = 0
    """The rank of its matrices; 0: full ones."""
    cross_experts: int = 1
    field_crosses: FieldCrossing = "none"
    field_matrices: Matrices = "shared"
    field_product: Product = "hadamard"
    wide: bool = True
    """Whether cross features also reach each task's logit by a line of their own (Cheng et al., "Wide & Deep
    Learning for Recommender Systems", 2016, arXiv 1606.07792): it learns what is plain from few examples."""
    wide_tasks: tuple[str, ...] = ()
    """The tasks that it reaches; empty for all. Watch time is exp(logit), so that a rare number explodes."""
    user_gates: bool = False
    """Whether the user gates the input and what each task reads."""
    members: int = 1
    """Models, trained one after another, whose logits are averaged: `training.models.averaged`."""

    def __post_init__(self) -> None:
        if not self.tasks:
            raise ValueError("tasks of a ranker are missing")
        for name in ("width", "hidden", "experts", "expert_width", "found", "cross_experts", "members"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.cross_experts > 1 and not self.cross_rank:
            raise ValueError("cross_experts need a cross_rank")
        if unknown := sorted(set(self.wide_tasks) - set(self.tasks)):
            raise ValueError(f"wide_tasks: {unknown[0]!r} is no task; there are {', '.join(self.tasks)}")


class MultiTaskRanker(nn.Module):
    """Predicts one logit per task for every candidate; what depends on the request alone is computed once."""

    def __init__(self, config: MultiTaskRankerConfig, inputs: ModelInputs) -> None:
        """Raise ValueError where a hard search lacks the categories of events or of items."""
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
        self.pool = HistoryInterest(config, inputs) if inputs.history else None
        self.crosses = PairedFields(config, inputs, self.tables) if config.field_crosses != "none" else None
        in_width = len(inputs.cross) + width * (5 if self.history else 3)
        in_width += self.crosses.out_width if self.crosses else 0
        self.cross_network = (
            CrossNetwork(in_width, config.cross_layers, rank=config.cross_rank, experts=config.cross_experts)
            if config.cross_layers
            else None
        )
        self.cross_scale = FeatureScale(len(inputs.cross))
        self.wide = WideLine(config, len(inputs.cross)) if config.wide and inputs.cross else None
        self.shared = _shared(config, in_width)
        gated = (in_width, config.expert_width) if config.user_gates else ()
        self.user_gates = nn.ModuleList(UserGate(width, config.hidden, each) for each in gated)
        self.task_towers = nn.ModuleList(
            mlp(config.expert_width, (max(config.expert_width // 2, 1), 1)) for _ in config.tasks
        )

    def encode_item(self, item: Mapping[str, Tensor]) -> Tensor:
        """Return what is kept of items for scoring [N, I]: their vector, what crosses and search need."""
        parts = [self.item_tower(self.item_fields(item))]
        if self.crosses is not None:
            parts.append(self.crosses.item(item).flatten(-2))
        if self.pool is not None and self.pool.category:
            parts.append(item[self.pool.category].to(parts[0].dtype).unsqueeze(-1))
        return torch.cat(parts, dim=-1)

    def score(self, request: Mapping[str, Tensor], item_BCI: Tensor, cross_BCK: Tensor) -> Tensor:
        """Return the logits [B, C, T] of candidates with what is kept of them and their cross features."""
        user_BD = self.request_tower(self.request_fields(request))
        item_BCD = item_BCI[..., : user_BD.shape[-1]]
        cross_BCK = self.cross_scale(cross_BCK)
        request_BCD = user_BD.unsqueeze(1).expand_as(item_BCD)
        parts = [cross_BCK, request_BCD, item_BCD, request_BCD * item_BCD]
        if self.history is not None and self.pool is not None:
            history_BCD = self.pool(request, item_BCI, item_BCD, *self.history(request))
            parts += [history_BCD, history_BCD * item_BCD]
        if self.crosses is not None:
            parts.append(self.crosses(request, item_BCI[..., user_BD.shape[-1] :]))
        logit_BCT = self._logits(user_BD, torch.cat(parts, dim=-1))
        return logit_BCT if self.wide is None else logit_BCT + self.wide(cross_BCK)

    def _logits(self, user_BD: Tensor, x_BCW: Tensor) -> Tensor:
        gates = [gate(user_BD).unsqueeze(1) for gate in self.user_gates]
        x_BCW = x_BCW * gates[0] if gates else x_BCW
        x_BCW = self.cross_network(x_BCW) if self.cross_network is not None else x_BCW
        shared_BCTH = self.shared(x_BCW)
        shared_BCTH = shared_BCTH * gates[1].unsqueeze(1) if gates else shared_BCTH
        logits = [tower(shared_BCTH[..., task, :]) for task, tower in enumerate(self.task_towers)]
        return torch.cat(logits, dim=-1)

    def forward(
        self, request: Mapping[str, Tensor], item: Mapping[str, Tensor], row_BC: Tensor, cross_BCK: Tensor
    ) -> Tensor:
        """Return the logits [B, C, T] of the candidates at rows [B, C] of the items [N, …]."""
        return self.score(request, self.encode_item(item)[row_BC], cross_BCK)


class WideLine(nn.Module):
    """A line of the cross features for each task that it reaches, 0 for the others."""

    def __init__(self, config: MultiTaskRankerConfig, features: int) -> None:
        super().__init__()
        reached = [config.tasks.index(task) for task in config.wide_tasks or config.tasks]
        self.line = nn.Linear(features, len(reached))
        self.columns = [reached.index(t) if t in reached else len(reached) for t in range(len(config.tasks))]

    def forward(self, cross_BCK: Tensor) -> Tensor:
        """Return what is added to the logits [B, C, T]."""
        return F.pad(self.line(cross_BCK), (0, 1))[..., self.columns]


class HistoryInterest(nn.Module):
    """Makes one vector of a history for each candidate, as the config says."""

    def __init__(self, config: MultiTaskRankerConfig, inputs: ModelInputs) -> None:
        super().__init__()
        assert inputs.history is not None
        self.field = inputs.history
        searched = config.history == "search" and config.search == "hard"
        if searched and not (self.field.categories and self.field.item_category):
            raise ValueError(
                "a hard search needs HistoryCategories beside the history and the items' Category alike"
            )
        self.category = self.field.item_category if searched else ""
        categories = {field.name: inputs.tables[field.table] for field in inputs.item if field.kind == "id"}
        self.pool = _pool(config, categories.get(self.category, 0))

    def forward(
        self,
        request: Mapping[str, Tensor],
        item_BCI: Tensor,
        item_BCD: Tensor,
        event_BLD: Tensor,
        present_BL: Tensor,
    ) -> Tensor:
        """Return the pooled events [B, C, D]."""
        if self.pool is None:
            return mean_pool(event_BLD, present_BL).unsqueeze(1).expand_as(item_BCD)
        if not isinstance(self.pool, SearchedPool):
            return self.pool(item_BCD, event_BLD, present_BL)  # type: ignore[no-any-return]
        asked_BC = category_BL = None
        if self.category:
            asked_BC, category_BL = item_BCI[..., -1].round().long(), request[self.field.categories]
        return self.pool(  # type: ignore[no-any-return]
            item_BCD, event_BLD, present_BL, asked_BC=asked_BC, category_BL=category_BL
        )


def _pool(
    config: MultiTaskRankerConfig, categories: int
) -> AttentionPool | ActivationPool | SearchedPool | None:
    match config.history:
        case "mean":
            return None
        case "attention":
            return AttentionPool(config.width)
        case "activation":
            return ActivationPool(config.width, config.hidden)
        case "search":
            return SearchedPool(config.width, config.search, config.found, categories=categories)


class PairedFields(nn.Module):
    """Crosses the fields of a request with those of its candidates."""

    def __init__(self, config: MultiTaskRankerConfig, inputs: ModelInputs, tables: nn.ModuleDict) -> None:
        super().__init__()
        self.request = FieldVectors(inputs.request, tables, config.width)
        self.item = FieldVectors(inputs.item, tables, config.width)
        self.fields, self.width = len(inputs.item), config.width
        self.cross = FieldCrosses(
            len(inputs.request) + len(inputs.item),
            config.width,
            config.field_crosses,
            matrices=config.field_matrices,
            product=config.field_product,
        )
        self.out_width = self.cross.out_width

    def forward(self, request: Mapping[str, Tensor], item_BCI: Tensor) -> Tensor:
        """Return the crosses [B, C, W]; the items' fields come first in what is kept of them."""
        shape = (*item_BCI.shape[:2], self.fields, self.width)
        item_BCFD = item_BCI[..., : self.fields * self.width].reshape(shape)
        request_BFD = self.request(request)
        request_BCFD = request_BFD.unsqueeze(1).expand(-1, item_BCFD.shape[1], -1, -1)
        return self.cross(torch.cat([request_BCFD, item_BCFD], dim=-2))  # type: ignore[no-any-return]


def _shared(config: MultiTaskRankerConfig, in_width: int) -> nn.Module:
    widths, tasks = (config.hidden, config.expert_width), len(config.tasks)
    if config.sharing == "bottom":
        return SharedBottom(in_width, widths, tasks, dropout=config.dropout)
    return Experts(
        in_width,
        widths,
        tasks,
        experts=config.experts,
        dropout=config.dropout,
        gate_dropout=config.gate_dropout,
    )
