"""Several rankers of equal settings as one, which differ in where their training began.

Lakshminarayanan et al., "Simple and Scalable Predictive Uncertainty Estimation using Deep Ensembles" (NeurIPS
2017, arXiv 1612.01474), with logits averaged in place of probabilities.

Legend: B = requests, C = candidates, N = items, K = cross features, T = tasks, I = numbers kept of an item by
all members together.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from training.models.multi_task_ranker import MultiTaskRanker


class Averaged(nn.Module):
    """The mean of its members' logits; what they keep of items stands side by side."""

    def __init__(self, members: Sequence[MultiTaskRanker]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def encode_item(self, item: Mapping[str, Tensor]) -> Tensor:
        """Return what is kept of items for scoring [N, I]."""
        return torch.cat([member.encode_item(item) for member in self._members()], dim=-1)

    def score(self, request: Mapping[str, Tensor], item_BCI: Tensor, cross_BCK: Tensor) -> Tensor:
        """Return the logits [B, C, T] of candidates with what is kept of them and their cross features."""
        members = self._members()
        parts = zip(members, item_BCI.chunk(len(members), dim=-1), strict=True)
        return torch.stack([member.score(request, part, cross_BCK) for member, part in parts]).mean(dim=0)

    def forward(
        self, request: Mapping[str, Tensor], item: Mapping[str, Tensor], row_BC: Tensor, cross_BCK: Tensor
    ) -> Tensor:
        """Return the logits [B, C, T] of the candidates at rows [B, C] of the items [N, …]."""
        return self.score(request, self.encode_item(item)[row_BC], cross_BCK)

    def _members(self) -> list[MultiTaskRanker]:
        return [member for member in self.members if isinstance(member, MultiTaskRanker)]
