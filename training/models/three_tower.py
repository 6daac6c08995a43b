"""Three-tower pre-ranker: user once a request, item cached per item, crosses per candidate.

Wang et al., "COLD: Towards the Next Generation of Pre-Ranking System" (2020, arXiv 2007.16122) for cross
features in pre-ranking; towers split by how often each must run is the design that followed it.

Legend: B = requests, C = candidates, D = width of a tower, K = cross features, T = tasks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.models.feature_scale import FeatureScale
from training.models.fields import FieldEncoder, ModelInputs, embedding_tables
from training.models.history import HistoryEncoder, mean_pool
from training.models.mlp import mlp


@dataclass(frozen=True, slots=True, kw_only=True)
class ThreeTowerConfig:
    """Sizes of the towers and of the head."""

    width: int = 32
    hidden: int = 64
    dropout: float = 0.1
    tasks: tuple[str, ...]
    kept_groups: int = 0
    """Groups of cross features that it reads, those that squeeze and excitation weighs most; 0: all."""

    def __post_init__(self) -> None:
        if self.kept_groups < 0:
            raise ValueError(f"kept_groups must not be negative, but is {self.kept_groups}")


class ThreeTower(nn.Module):
    """Meets user, item and cross vectors in one small head of a logit per task."""

    def __init__(self, config: ThreeTowerConfig, inputs: ModelInputs) -> None:
        super().__init__()
        width = config.width
        self.tables = embedding_tables(inputs.tables, width)
        self.history = HistoryEncoder(inputs.history, self.tables, width) if inputs.history else None
        self.request_fields = FieldEncoder(inputs.request, self.tables, width)
        self.item_fields = FieldEncoder(inputs.item, self.tables, width)
        user_width = self.request_fields.out_width + (width if self.history else 0)
        self.user_tower = mlp(user_width, (config.hidden, width), dropout=config.dropout)
        self.item_tower = mlp(self.item_fields.out_width, (config.hidden, width), dropout=config.dropout)
        cross_tower = mlp(len(inputs.cross), (config.hidden, width), dropout=config.dropout)
        self.cross_tower = nn.Sequential(FeatureScale(len(inputs.cross)), cross_tower)
        self.head = mlp(4 * width, (config.hidden, len(config.tasks)), dropout=config.dropout)

    def encode_request(self, request: Mapping[str, Tensor]) -> Tensor:
        """Return the user tower's vectors [B, D]."""
        parts = [self.request_fields(request)]
        if self.history is not None:
            parts.append(mean_pool(*self.history(request)))
        return self.user_tower(torch.cat(parts, dim=-1))  # type: ignore[no-any-return]

    def encode_item(self, item: Mapping[str, Tensor]) -> Tensor:
        """Return the item tower's vectors [N, D]."""
        return self.item_tower(self.item_fields(item))  # type: ignore[no-any-return]

    def interact(self, user_BD: Tensor, item_BCD: Tensor, cross_BCK: Tensor) -> Tensor:
        """Return the logits [B, C, T] of candidates.

        The head sees user, item, user * item and cross. Its first layer is computed in parts: the user's is
        the same for all candidates, and that of user * item is linear in the item, as the item's own is.
        """
        first, *rest = self.head
        assert isinstance(first, nn.Linear)
        user_HD, item_HD, both_HD, cross_HD = first.weight.chunk(4, dim=1)
        folded_BHD = item_HD + both_HD * user_BD.unsqueeze(1)
        hidden_BCH = item_BCD @ folded_BHD.transpose(1, 2)
        hidden_BCH = hidden_BCH + F.linear(self.cross_tower(cross_BCK), cross_HD)
        hidden_BCH = hidden_BCH + F.linear(user_BD, user_HD, first.bias).unsqueeze(1)
        for layer in rest:
            hidden_BCH = layer(hidden_BCH)
        return hidden_BCH

    def forward(
        self, request: Mapping[str, Tensor], item: Mapping[str, Tensor], row_BC: Tensor, cross_BCK: Tensor
    ) -> Tensor:
        """Return the logits [B, C, T] of the candidates at rows [B, C] of the items [N, …]."""
        item_BCD = self.encode_item(item)[row_BC]
        return self.interact(self.encode_request(request), item_BCD, cross_BCK)
