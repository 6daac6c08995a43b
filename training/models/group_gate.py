"""Squeeze and excitation over feature groups, by whose weights a pre-ranker keeps the best of them.

Wang et al., "COLD: Towards the Next Generation of Pre-Ranking System" (2020, arXiv 2007.16122, section 3.2):
s = sigmoid(W [e_1 … e_M] + b), a weight for each group, which multiplies the group.

Legend: B = requests, C = candidates, N = items, K = cross features, M = groups of them, T = tasks.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from training.models.fields import ModelInputs
from training.models.three_tower import ThreeTower, ThreeTowerConfig


class GroupGate(nn.Module):
    """A three-tower pre-ranker whose groups of cross features are weighed, for each candidate anew.

    The block sees both towers' vectors, too, but does not weigh them: they cost nothing per candidate.
    """

    group_K: Tensor

    def __init__(
        self, config: ThreeTowerConfig, inputs: ModelInputs, groups: Sequence[Sequence[int]]
    ) -> None:
        super().__init__()
        self.towers = ThreeTower(config, inputs)
        columns = sorted(column for group in groups for column in group)
        if columns != list(range(len(inputs.cross))):
            raise ValueError("every cross feature must be of one group")
        group_of = {column: m for m, group in enumerate(groups) for column in group}
        self.register_buffer("group_K", torch.tensor([group_of[k] for k in columns]), persistent=False)
        self.excite = nn.Linear(2 * config.width + len(inputs.cross), len(groups))

    def weights(self, user_BD: Tensor, item_BCD: Tensor, cross_BCK: Tensor) -> Tensor:
        """Return the weight of each group, 0 to 1 [B, C, M]."""
        user_BCD = user_BD.unsqueeze(1).expand(-1, item_BCD.shape[1], -1)
        return torch.sigmoid(self.excite(torch.cat([user_BCD, item_BCD, cross_BCK], dim=-1)))

    def forward(
        self, request: Mapping[str, Tensor], item: Mapping[str, Tensor], row_BC: Tensor, cross_BCK: Tensor
    ) -> Tensor:
        """Return the logits [B, C, T] of the candidates at rows [B, C] of the items [N, …]."""
        user_BD, item_BCD = self.towers.encode_request(request), self.towers.encode_item(item)[row_BC]
        weight_BCM = self.weights(user_BD, item_BCD, cross_BCK)
        return self.towers.interact(user_BD, item_BCD, cross_BCK * weight_BCM[..., self.group_K])

    def weigh(
        self, request: Mapping[str, Tensor], item: Mapping[str, Tensor], row_BC: Tensor, cross_BCK: Tensor
    ) -> Tensor:
        """Return the weight of each group [B, C, M]."""
        user_BD, item_BCD = self.towers.encode_request(request), self.towers.encode_item(item)[row_BC]
        return self.weights(user_BD, item_BCD, cross_BCK)
